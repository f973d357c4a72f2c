"""`Expert`: a model or adapter that answers for some domains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import InferenceServiceRef
from largeforge.api.expertstatus import ExpertStatus
from largeforge.api.meta import ObjectMeta
from largeforge.api.model import LargeForgeName, Model, rules
from largeforge.api.names import API_VERSION
from largeforge.api.routing import Routing
from largeforge.api.uri import ModelUriText

URL_PATTERN = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9_][A-Za-z0-9._~-]*)*$"
"""An address without user, query and fragment, and no segment that begins with a dot."""

Stage = Literal["Development", "Staging", "Production", "Archived"]
DeletionPolicy = Literal["Retain", "Delete"]


class Defaults(Model):
    """What the router puts into a request where the client left it out; the names are OpenAI's and vLLM's."""

    model_config = rules(("!has(self.topP) || self.topP > 0.0", "topP must be above 0, for example 0.9"))

    system_prompt: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """The system message of a chat that has none."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """`temperature`: 0 is greedy."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """`top_p`: the share of the likeliest tokens that are sampled from."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """`top_k`: the number of the likeliest tokens that are sampled from."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """The longest answer in tokens, where the client sets neither `max_tokens` nor `max_completion_tokens`."""


class Limits(Model):
    """What each replica of the router lets through to this expert."""

    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests at a time for each replica; more wait a moment in a bounded queue, then get 429 with Retry-After."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """From a request's arrival to the end of its answer; what lasts longer is cut."""


class Access(Model):
    """Who may use this expert."""

    clients: Annotated[
        list[
            Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
        ],
        Field(max_length=128, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = []
    """Names of clients (entries of the router's Secret of keys); none means all. Others do not see the expert."""


class SourceRef(Model):
    """The object that makes the artifact."""

    kind: Literal["FineTuneJob", "QuantizeJob"]
    """Its kind; a QuantizeJob makes whole models (type Model)."""
    name: LargeForgeName
    """Its name, in the same namespace; the newest run that its gate has let out is followed."""
    run: Annotated[int, Field(ge=1)] | None = None
    """The number of one run, of the job's status.run and status.history; it is served whatever comes after it."""


class Artifact(Model):
    """Where the files are."""

    uri: ModelUriText
    """`pvc://claim/path` of an adapter's folder; of type Model the service's own `model.uri`. Its files never change:
    a new version is a new folder."""


class Endpoint(Model):
    """A server outside of LargeForge that speaks OpenAI's API."""

    url: Annotated[str, Field(max_length=512, pattern=URL_PATTERN)]
    """Its address up to and without `/v1`, for example `https://llm.example.com`; the chart's value
    router.externalHosts lists the hosts that are allowed."""
    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")] | None = None
    """The model's name there; by default this Expert's name."""


class Probe(Model):
    """A question that the Expert must be able to answer before it gets requests."""

    prompt: Annotated[str, Field(min_length=1, max_length=4096)]
    """What is asked, as the user's only message."""
    expect_regex: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=256,
                json_schema_extra={
                    "x-kubernetes-validations": [
                        {
                            # A pattern that does not compile is an error of the rule, which the API server tells.
                            "rule": "'x'.matches(self) in [true, false]",
                            "message": "expectRegex must be a regular expression in the syntax of RE2",
                        }
                    ]
                },
            ),
        ]
        | None
    ) = None
    """A regular expression (RE2) that the first 64 tokens of the answer must match somewhere; without it any answer
    will do."""


class ExpertSpec(Model):
    """What serves, where it comes from, and which requests it gets."""

    model_config = rules(
        (
            "[has(self.artifact), has(self.sourceRef), has(self.endpoint)].filter(x, x).size() == 1",
            "an expert needs exactly one of sourceRef, artifact and endpoint",
        ),
        (
            "(self.type == 'External') == has(self.endpoint)",
            "endpoint makes an expert of type External: set both, or name a sourceRef or an artifact.uri",
        ),
        (
            "(self.type == 'External') != has(self.inferenceServiceRef)",
            "experts of type Adapter and Model name their InferenceService in inferenceServiceRef; External has none",
        ),
        (
            "self.type != 'Adapter' || !has(self.artifact) || self.artifact.uri.matches('^pvc://[^/]+/.+')",
            "artifact.uri of an adapter is a folder of a claim: write pvc://<claim>/<path>",
        ),
        (
            "self.type == 'Model' || !has(self.sourceRef) || self.sourceRef.kind != 'QuantizeJob'",
            "a QuantizeJob makes whole models; set type: Model",
        ),
        (
            "self.deletionPolicy == 'Retain' || self.type == 'Adapter'",
            "deletionPolicy Delete removes an adapter's files; leave it out for the other types",
        ),
        (
            "!has(self.probe) || self.type != 'External'",
            "the router probes an External expert by a generation of its own; remove probe",
        ),
    )

    type: Annotated[
        Literal["Adapter", "Model", "External"],
        Field(
            json_schema_extra={
                "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "type cannot change; make another Expert"}
                ]
            }
        ),
    ]
    """Adapter: a LoRA adapter on the service's model. Model: the service's model itself. External: another server."""
    source_ref: SourceRef | None = None
    """The job whose result is served."""
    artifact: Artifact | None = None
    """Files that are there already."""
    endpoint: Endpoint | None = None
    """The server of an Expert of type External."""
    inference_service_ref: InferenceServiceRef | None = None
    """The InferenceService that serves it; not of type External."""
    version: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None = None
    """A version for people, shown in the columns."""
    stage: Stage = "Development"
    """Where it stands in its life, for people; Archived takes it out of every route and off the pods."""
    routing: Routing = Routing()
    """Which requests this expert gets."""
    defaults: Defaults = Defaults()
    """What the router puts into a request where the client left it out."""
    limits: Limits = Limits()
    """What each replica of the router lets through to this expert."""
    access: Access = Access()
    """Who may use this expert."""
    probe: Probe | None = None
    """A question that it must be able to answer before it gets requests."""
    deletion_policy: DeletionPolicy = "Retain"
    """What becomes of the adapter's files when this object is deleted. Delete removes those that no other Expert
    serves; the object stays until they are gone."""

    @property
    def service_name(self) -> str:
        """The InferenceService's name; empty where there is none."""
        return self.inference_service_ref.name if self.inference_service_ref is not None else ""


class Expert(Model):
    """A model or adapter that answers for some domains: resolved, loaded, proven to answer, routable."""

    model_config = rules(
        (
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: at most 40 characters, a letter first, then letters, digits and '-'"
            " (for example qwen2-5-7b, not qwen2.5-7b)",
        ),
        ("self.metadata.name != 'auto'", "metadata.name: 'auto' is the router's own name; choose another"),
    )

    api_version: str = API_VERSION
    kind: Literal["Expert"] = "Expert"
    metadata: ObjectMeta
    spec: ExpertSpec
    """What serves, where it comes from, and which requests it gets."""
    status: ExpertStatus = ExpertStatus()
    """What was observed."""
