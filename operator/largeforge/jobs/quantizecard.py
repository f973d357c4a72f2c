"""The README of a smaller model."""

from __future__ import annotations

from largeforge.api.quantize import MethodSettings, QuantizeConfig, QuantizeResult

_STORED = {
    "AWQ": "weights in 4 bits (AWQ)",
    "GPTQ": "weights in 4 bits (GPTQ)",
    "W8A8": "weights and activations in 8-bit integers (SmoothQuant)",
    "FP8Dynamic": "weights and activations in 8-bit floating point",
}


def card(config: QuantizeConfig, settings: MethodSettings, result: QuantizeResult) -> str:
    """What it is and how it was made; nothing of the data's content. What was measured is in status."""
    source = config.source
    commit = f" at commit `{source.commit}`" if source.commit is not None else ""
    group = f", groups of {settings.group_size}" if settings.group_size is not None else ""
    symmetric = "" if settings.group_size is None else ", no zero point" if settings.symmetric else ", a zero point"
    artifact = result.artifact
    lines = [
        "---",
        "library_name: transformers",
        *([f"base_model: {source.uri.removeprefix('hf://')}"] if source.uri.startswith("hf://") else []),
        "pipeline_tag: text-generation",
        f"tags: [largeforge, {settings.method.lower()}]",
        "---",
        f"# {config.job}: {settings.method}",
        "",
        f"`{source.uri}`{commit} with {_STORED[settings.method]}{group}{symmetric};"
        f" made by run {config.run} of the QuantizeJob `{config.job}`.",
        "",
        f"- library: {settings.engine}",
        f"- left as they were: {', '.join(settings.ignore)}",
        *(f"- {version.name} {version.value}" for version in result.versions),
        *([f"- SHA-256 of the weights `{artifact.digest}`"] if artifact is not None else []),
        "",
    ]
    return "\n".join(lines)
