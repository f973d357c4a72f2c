from __future__ import annotations

import importlib.machinery
import json
import re
import sys
import types

import pytest

from largeforge.api.run import ModelSource, RowSource
from largeforge.jobs import hub, hubdata, huberrors, hubhosts
from largeforge.jobs.errors import BaseInvalidError, DatasetInvalidError, RunError
from tests.hub import RULES_FILE, Hub, commit_of
from tests.unit.jobs.folders import model, safetensors
from tests.unit.jobs.runs import CHAT, PAIR, config, written

TOKEN = "hf_a_good_token_of_the_tests"
COMMIT = re.compile("[0-9a-f]{40}")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    with Hub(tmp_path / "hub") as server:
        monkeypatch.setenv(hubhosts.ENDPOINT, server.url)
        yield server


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(hub.time, "sleep", found.append)
    return found


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


def repository(server, kind, name, *, rules=None, revision="main"):
    folder = server.root / kind / name / revision
    folder.mkdir(parents=True)
    if rules is not None:
        (folder.parent / RULES_FILE).write_text(json.dumps(rules))
    return folder


def base(**fields):
    return ModelSource(**{"uri": "hf://org/base", "field": "spec.base.uri", "path": None} | fields)


def rows(**fields):
    return RowSource(**{"uri": "hf://org/rows", "field": "spec.datasets[0]", "path": None} | fields)


def refusal(source, call=hub.commit_of):
    with pytest.raises(RunError) as caught:
        call(hub.repository(source, None))
    error = caught.value
    return error.reason, error.exit_code, error.field, str(error)


def fetched(source, cache):
    commit = hub.commit_of(hub.repository(source, cache))
    pinned = source.model_copy(update={"commit": commit})
    if isinstance(source, ModelSource):
        return pinned, hub.fetch_model(hub.repository(pinned, cache), say=lambda _: None)
    hub.fetch_dataset(hub.repository(pinned, cache), pinned, say=lambda _: None)
    return pinned, hub.dataset_files(pinned, cache)


def test_a_revision_is_resolved_to_its_commit(mirror):
    main = model(repository(mirror, "models", "org/base"))
    older = model(repository(mirror, "models", "org/base", revision="v1"), config={"model_type": "older"})
    assert hub.commit_of(hub.repository(base(), None)) == commit_of(main)
    assert hub.commit_of(hub.repository(base(revision="v1"), None)) == commit_of(older) != commit_of(main)


def test_of_a_model_only_what_a_run_needs_is_downloaded(mirror, cache):
    folder = model(repository(mirror, "models", "org/base"))
    for name in ("pytorch_model.bin", "modeling_x.py", "consolidated.safetensors", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(safetensors())
    pinned, path = fetched(base(), cache)
    assert sorted(file.name for file in path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert path.name == pinned.commit
    assert (path / "model.safetensors").read_bytes() == safetensors()


def test_code_of_a_model_is_downloaded_only_where_it_is_trusted(mirror, cache):
    (model(repository(mirror, "models", "org/base")) / "modeling_x.py").write_text("")
    repo = hub.repository(base(), cache)
    path = hub.fetch_model(hub.repository(base(commit=hub.commit_of(repo)), cache), say=print, trust_remote_code=True)
    assert (path / "modeling_x.py").exists()


def test_shards_are_those_of_the_index(mirror, cache):
    folder = model(
        repository(mirror, "models", "org/base"), weights=("a-1.safetensors", "a-2.safetensors", "x.safetensors")
    )
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a-1.safetensors", "v": "a-2.safetensors"}}))
    _, path = fetched(base(), cache)
    assert sorted(file.name for file in path.glob("*.safetensors")) == ["a-1.safetensors", "a-2.safetensors"]
    index.write_text(json.dumps({"weight_map": {"w": "a-3.safetensors"}}))
    with pytest.raises(BaseInvalidError, match=r"lacks 1 of its weight files, first a-3\.safetensors"):
        fetched(base(), cache)


def test_what_the_cache_has_is_not_asked_for_again(mirror, cache):
    model(repository(mirror, "models", "org/base"))
    fetched(base(), cache)
    mirror.asked.clear()
    fetched(base(), cache)
    assert [line for line in mirror.asked if "/resolve/" in line] == []


def test_training_reads_the_cache_without_a_question(mirror, cache, tmp_path):
    model(repository(mirror, "models", "org/base"))
    written(repository(mirror, "datasets", "org/rows") / "train.jsonl", CHAT)
    pinned, path = fetched(base(), cache)
    data, files = fetched(rows(), cache)
    mirror.asked.clear()
    run = config(tmp_path, data, base=pinned.model_dump(), cache_path=cache)
    assert hub.model_folder(run) == path
    assert hub.dataset_files(data, cache) == files
    assert mirror.asked == []


def test_a_cache_that_was_emptied_is_said(cache):
    with pytest.raises(RunError, match="is not in the cache any more"):
        hub.cached(hub.repository(base(commit="0" * 40), cache))


def test_a_mounted_base_is_where_it_is_mounted(tmp_path):
    assert hub.model_folder(config(tmp_path, rows())) == tmp_path / "base"


@pytest.mark.parametrize(
    ("names", "fields", "found"),
    [
        (("train.jsonl", "test.jsonl", "README.md"), {}, ["train.jsonl"]),
        (("train.jsonl", "test.jsonl"), {"split": "test"}, ["test.jsonl"]),
        (
            ("data/train-00001-of-00002.json", "data/train-00000-of-00002.json", "data/test-00000-of-00001.json"),
            {},
            ["data/train-00000-of-00002.json", "data/train-00001-of-00002.json"],
        ),
        (("rows.csv",), {}, ["rows.csv"]),
        (("train/a.jsonl", "train/b.jsonl", "validation/a.jsonl"), {"split": "validation"}, ["validation/a.jsonl"]),
    ],
)
def test_the_files_of_a_split_are_found_by_the_hubs_rules(mirror, cache, names, fields, found):
    folder = repository(mirror, "datasets", "org/rows")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        written(folder / name, PAIR)
    _, files = fetched(rows(**fields), cache)
    assert [uri for _, uri, _ in files] == [f"hf://org/rows/{name}" for name in found]
    assert [path.read_text() for path, _, _ in files] == [json.dumps(PAIR) + "\n"] * len(found)


@pytest.fixture
def configurations(mirror):
    folder = repository(mirror, "datasets", "org/rows")
    for name in ("de.csv", "en/a.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("prompt,completion\na,b\n")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: de\n  data_files:\n  - split: train\n    path: de.csv\n"
        "- config_name: en\n  data_files: en/*.json\n---\n"
    )
    return folder


@pytest.mark.usefixtures("configurations")
def test_a_configuration_is_the_cards_own(cache):
    assert [kind for _, _, kind in fetched(rows(config="de"), cache)[1]] == [".csv"]
    assert [kind for _, _, kind in fetched(rows(config="en"), cache)[1]] == [".json"]


@pytest.mark.usefixtures("configurations")
@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({}, "config", "hf://org/rows: has several configurations; set spec.datasets[0].config to one of [de, en]"),
        (
            {"config": "fr"},
            "config",
            "hf://org/rows: has no configuration 'fr'; set spec.datasets[0].config to one of [de, en]",
        ),
        ({"config": "de", "split": "test"}, "split", ": has no split 'test'; it has train: set spec.datasets[0].split"),
    ],
)
def test_a_configuration_or_split_that_is_not_there_is_said(cache, fields, field, text):
    with pytest.raises(hubdata.SplitNotFoundError) as caught:
        fetched(rows(**fields), cache)
    assert text in str(caught.value)
    assert (caught.value.field, caught.value.exit_code) == (f"spec.datasets[0].{field}", 64)


def test_a_loading_script_is_not_run_and_rows_are_needed(mirror, cache, tmp_path):
    script = repository(mirror, "datasets", "org/rows") / "rows.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DatasetInvalidError, match="no rows are found in the repository"):
        fetched(rows(), cache)
    assert not (tmp_path / "ran").exists()


SECRET = "spec.base.secretRef"


@pytest.mark.parametrize(
    ("rules", "token", "reason", "text"),
    [
        (
            {"token": TOKEN},
            None,
            "HubUnauthorized",
            "does not exist, or is private; correct the uri, or name the Secret with the hub's token in"
            f" {SECRET} (401)",
        ),
        (
            {"token": TOKEN},
            "wrong",
            "HubUnauthorized",
            f"the hub does not take the token of {SECRET}; put a valid one into the Secret (401)",
        ),
        (
            {"token": TOKEN, "gated": True},
            None,
            "HubForbidden",
            f"is gated (403); accept its licence on the hub and name the Secret with your token in {SECRET}",
        ),
        (
            {"token": TOKEN, "gated": True},
            "another's",
            "HubForbidden",
            f"is gated (403); accept its licence on the hub with the account whose token {SECRET} holds",
        ),
        (
            {"token": TOKEN, "forbids": True},
            "another's",
            "HubForbidden",
            f"may not be read with this token (403); give the token in {SECRET} the right to read it",
        ),
    ],
)
def test_a_refusal_names_the_remedy(mirror, monkeypatch, *, rules, token, reason, text):
    model(repository(mirror, "models", "org/base", rules=rules))
    if token is not None:
        monkeypatch.setenv("THE_TOKEN", token)
    found = refusal(base(token_env="THE_TOKEN"))
    assert found == (reason, 64, SECRET, f"hf://org/base: {text}")


def test_the_right_token_opens_a_gated_model(mirror, monkeypatch, cache):
    model(repository(mirror, "models", "org/base", rules={"token": TOKEN, "gated": True}))
    monkeypatch.setenv("THE_TOKEN", f"{TOKEN}\n")  # as a file of a Secret often ends
    assert COMMIT.fullmatch(fetched(base(token_env="THE_TOKEN"), cache)[0].commit)


def test_what_is_not_there_is_told_apart(mirror, monkeypatch):
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    assert refusal(base(uri="hf://org/none", token_env="THE_TOKEN")) == (
        "HubNotFound",
        64,
        "spec.base.uri",
        "hf://org/none: there is no such repository (404); correct the uri",
    )
    model(repository(mirror, "models", "org/base"))
    assert refusal(base(revision="v9")) == (
        "HubNotFound",
        64,
        "spec.base.revision",
        "hf://org/base: has no revision 'v9' (404); correct it or leave it out",
    )
    written(repository(mirror, "datasets", "org/rows") / "train.jsonl", CHAT)
    assert refusal(rows(revision="v9"))[2] == "spec.datasets[0].revision"


def test_a_hub_that_is_busy_is_asked_again_after_the_wait_that_it_names(mirror, waits):
    model(repository(mirror, "models", "org/base", rules={"status": 429, "times": 2, "retryAfter": 7}))
    assert COMMIT.fullmatch(hub.commit_of(hub.repository(base(), None)))
    assert waits == [7, 7]


def test_a_hub_that_asks_for_a_long_wait_ends_the_attempt(mirror, waits):
    model(repository(mirror, "models", "org/base", rules={"status": 429, "retryAfter": 300}))
    assert refusal(base()) == (
        "HubRateLimited",
        1,
        "spec.base.uri",
        "hf://org/base: the hub asks to wait for 300 s (429); use a token (spec.base.secretRef), or a mirror"
        " (hub.endpoint)",
    )
    assert waits == []


def test_a_hub_that_stays_busy_ends_the_attempt(mirror, waits):
    model(repository(mirror, "models", "org/base", rules={"status": 429}))
    assert refusal(base())[:2] == ("HubRateLimited", 1)
    assert len(waits) == hub.TRIES - 1


@pytest.mark.usefixtures("waits")
def test_a_hub_that_is_away_is_another_attempts_business(monkeypatch, tmp_path):
    with Hub(tmp_path) as server:
        url = server.url
    monkeypatch.setenv(hubhosts.ENDPOINT, url)
    reason, code, _, text = refusal(base())
    assert (reason, code) == ("HubUnreachable", 1)
    assert text.startswith("hf://org/base: the hub cannot be reached (")


def test_a_mirror_that_sends_us_elsewhere_is_not_followed(mirror, cache):
    model(repository(mirror, "models", "org/base", rules={"redirect": "http://elsewhere.example"}))
    with pytest.raises(hubhosts.HostRefusedError) as caught:
        fetched(base(), cache)
    assert str(caught.value) == (
        "the hub sends us to elsewhere.example, which is not allowed; list the host in the chart's hub.hosts, or"
        " correct hub.endpoint"
    )
    assert (caught.value.field, caught.value.exit_code) == ("spec.base.uri", 64)


def test_a_listed_host_is_followed_without_the_token(mirror, cache, monkeypatch, tmp_path):
    folder = model(repository(mirror, "models", "org/base"))
    with Hub(tmp_path / "storage", host="127.0.0.2") as storage:
        model(repository(storage, "models", "org/base"))
        (folder.parent / RULES_FILE).write_text(json.dumps({"redirect": storage.url}))
        monkeypatch.setenv("THE_TOKEN", TOKEN)
        monkeypatch.setenv(hubhosts.HOSTS, "127.0.0.2")
        _, path = fetched(base(token_env="THE_TOKEN"), cache)
        assert (path / "model.safetensors").read_bytes() == safetensors()
        assert any("model.safetensors" in line for line in storage.asked)
        assert storage.tokens == set()
    assert mirror.tokens == {TOKEN}


@pytest.mark.parametrize(
    ("scheme", "host", "allowed"),
    [
        ("https", "cdn.example", True),
        ("http", "cdn.example", False),
        ("https", "10.0.0.7", False),
        ("https", "169.254.169.254", False),
        ("https", "[::1]", False),
        ("https", "metadata", False),
        ("https", "api.team.svc", False),
        ("https", "api.team.svc.cluster.local", False),
    ],
)
def test_the_clients_own_hub_may_send_us_to_public_hosts_alone(scheme, host, allowed):
    assert hubhosts.Hosts(("hub.example",), any_public=True).allow(scheme, host) == allowed


def test_a_pattern_lists_what_is_below_a_host():
    hosts = hubhosts.Hosts(("hub.example", "*.cdn.example"), any_public=False)
    assert [
        hosts.allow("https", host) for host in ("HUB.example", "eu.cdn.example", "cdn.example", "xcdn.example")
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_a_full_cache_is_found_before_the_download(mirror, cache, monkeypatch):
    model(repository(mirror, "models", "org/base"))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    with pytest.raises(RunError, match=r"to download and 1\.1 GB to leave free are more than") as caught:
        fetched(base(), cache)
    assert (caught.value.reason, caught.value.exit_code) == ("DiskFull", 1)


def test_a_disk_that_fills_up_meanwhile_is_told_apart():
    asked = hub.repository(base(), None).asked
    assert huberrors.told_apart(OSError(28, "No space left on device"), asked).reason == "DiskFull"
    assert huberrors.told_apart(KeyError("x"), asked) is None


def test_a_transport_that_fails_is_known_under_the_older_client_too(monkeypatch):
    # huggingface_hub 1, which the quantizer has, is over httpx; this environment has version 2, over httpx2.
    older = types.ModuleType("httpx")
    older.__spec__ = importlib.machinery.ModuleSpec("httpx", None)
    older.TransportError = type("TransportError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "httpx", older)
    asked = huberrors.Asked("hf://lab/m", "spec.source.uri", "spec.source", "main", has_token=False)
    assert huberrors.told_apart(older.TransportError("refused"), asked).reason == "HubUnreachable"
