from __future__ import annotations

import jwt
import pytest

from largeforge.controllers.progresstokens import KEYS, REFRESH_SECONDS, UNKNOWN_SECONDS, Tokens, Untrusted
from largeforge.kube.cluster import ClusterError
from tests.unit.fakes import FakeCluster
from tests.unit.progress import POD, Clock, Issuer

ISSUER = Issuer()


class Counted(FakeCluster):
    """A cluster that counts how often its keys are asked for."""

    def __init__(self, *issuers):
        super().__init__()
        self.documents = issuers[0].documents() | {KEYS: {"keys": [i.jwk() for i in issuers]}}
        self.fetches = 0

    async def document(self, path):
        self.fetches += path == KEYS
        return await super().document(path)


async def refused(token, *, cluster=None):
    with pytest.raises(Untrusted) as caught:
        await Tokens(cluster or Counted(ISSUER)).pod_of(token)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_of_the_api_server_names_its_pod(algorithm):
    issuer = Issuer(algorithm=algorithm)
    assert await Tokens(Counted(issuer)).pod_of(issuer.token()) == POD


async def test_an_expired_token_is_refused():
    assert await refused(ISSUER.token(age=3700)) == "the token has expired"


async def test_a_token_that_is_not_valid_yet_is_refused():
    assert await refused(ISSUER.token(age=-120)) == "the token is not valid yet"


async def test_a_token_for_the_api_server_is_refused():
    assert await refused(ISSUER.token(aud=["https://kubernetes.default.svc"])) == (
        "the token is not for largeforge-progress"
    )


async def test_a_token_of_another_issuer_is_refused_although_its_key_is_known():
    assert await refused(ISSUER.token(iss="https://elsewhere")) == "the token is of another issuer"


async def test_a_token_of_another_clusters_key_is_refused():
    assert "a key that this API server does not have" in await refused(Issuer(key_id="key-2").token())


async def test_a_token_that_is_forged_under_a_known_key_id_is_refused():
    assert await refused(Issuer(key_id="key-1").token()) == "the token's signature is wrong"


async def test_a_changed_token_is_refused():
    head, _, signature = ISSUER.token().split(".")
    _, body, _ = ISSUER.token(sub="system:serviceaccount:team:admin").split(".")
    assert await refused(f"{head}.{body}.{signature}") == "the token's signature is wrong"


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_a_token_that_chooses_its_own_algorithm_is_refused(algorithm):
    claims = jwt.decode(ISSUER.token(), options={"verify_signature": False})
    key = "" if algorithm == "none" else "n" * 64
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": ISSUER.key_id})
    assert await refused(token) == "the token is not valid"


async def test_a_secret_key_among_the_public_ones_is_not_used():
    cluster = Counted(ISSUER)
    cluster.documents[KEYS] = {"keys": [{"kty": "oct", "kid": "key-1", "k": "bm5u" * 16, "alg": "HS256"}]}
    claims = jwt.decode(ISSUER.token(), options={"verify_signature": False})
    token = jwt.encode(claims, b"nnn" * 16, algorithm="HS256", headers={"kid": "key-1"})
    assert "a key that this API server does not have" in await refused(token, cluster=cluster)


@pytest.mark.parametrize(
    "binding",
    [None, {}, {"namespace": "team"}, {"namespace": "team", "pod": {"name": "p"}}, {"pod": {"name": "p", "uid": "u"}}],
)
async def test_a_token_that_is_bound_to_no_pod_is_refused(binding):
    assert await refused(ISSUER.token(**{"kubernetes.io": binding})) == "the token is bound to no pod"


@pytest.mark.parametrize("claim", ["exp", "iss", "aud"])
async def test_a_token_without_a_claim_that_limits_it_is_refused(claim):
    assert await refused(ISSUER.token(**{claim: None})) != ""


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "e30.e30.e30"])
async def test_what_is_no_token_is_refused(text):
    assert await refused(text) != ""


async def test_a_new_key_is_found_and_strangers_do_not_make_us_ask_again_and_again():
    old, new, clock = ISSUER, Issuer(key_id="key-2"), Clock()
    cluster = Counted(old)
    tokens = Tokens(cluster, clock)
    await tokens.pod_of(old.token())
    for _ in range(20):
        with pytest.raises(Untrusted):
            await tokens.pod_of(new.token())
    assert cluster.fetches == 1
    clock.seconds = UNKNOWN_SECONDS
    cluster.documents[KEYS] = {"keys": [old.jwk(), new.jwk()]}
    assert await tokens.pod_of(new.token()) == POD
    assert cluster.fetches == 2


async def test_a_key_that_is_withdrawn_is_not_trusted_for_ever():
    clock, cluster = Clock(), Counted(ISSUER)
    tokens = Tokens(cluster, clock)
    await tokens.pod_of(ISSUER.token())
    cluster.documents[KEYS] = {"keys": []}
    await tokens.pod_of(ISSUER.token())
    clock.seconds = REFRESH_SECONDS
    with pytest.raises(Untrusted):
        await tokens.pod_of(ISSUER.token())


async def test_an_api_server_that_does_not_answer_is_no_strangers_fault():
    with pytest.raises(ClusterError):
        await Tokens(FakeCluster()).pod_of(ISSUER.token())
