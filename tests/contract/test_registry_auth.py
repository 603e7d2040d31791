"""A real registry that wants a login: passwords, helpers and tokens, as ``docker login`` keeps them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from contract.servers import free_port, process, program, threaded
from unit.remotes.faulty import FaultyServer

from wszoo.distribution.push import push
from wszoo.errors import MalformedError, RemoteError
from wszoo.names import Ref
from wszoo.remotes.registry import RegistryType
from wszoo.remotes.registry_auth import RegistryCredentials
from wszoo.testing.remotes import FIRST, WriteContract, content, read_all
from wszoo.testing.zoo import sample_zoo

USER, PASSWORD = "vendor", "correct horse"
HTPASSWD = "vendor:$2b$05$1g4g/3DUjLrc2NqkoTITOuwoE9b1/GQWe/4UI2u9E8RuQQtZmLOCS\n"  # bcrypt of the password above

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {auth}
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Write docker's config.json; nothing of this machine's own logins is seen."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    def write(**config):
        (folder / "config.json").write_text(json.dumps(config))

    write()
    return write


def start(tmp_path, auth, port):
    binary = program("docker-registry", "apt-get install docker-registry")
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(root=tmp_path / "registry", port=port, auth=json.dumps(auth)))
    return process([binary, "serve", str(config)], f"http://127.0.0.1:{port}/v2/", log=tmp_path / "registry.log")


@pytest.fixture
def guarded(tmp_path, docker):
    """A registry that wants a user and a password."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    port = free_port()
    with start(tmp_path, {"htpasswd": {"realm": "zoo", "path": str(tmp_path / "htpasswd")}}, port):
        yield f"127.0.0.1:{port}"


def login(password=PASSWORD):
    return {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}


def round_trip(host, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    push(zoo, RegistryType().open(f"oci://{host}/zoo"), FIRST)
    remote = RegistryType().open(f"oci://{host}/zoo")
    assert remote.resolve(FIRST).digest == zoo.refs.get(FIRST).descriptor.digest
    for descriptor in content(zoo, FIRST):
        assert len(read_all(remote, descriptor)) == descriptor.size


@pytest.mark.parametrize("config", [{}, {"auths": {}}, {"auths": {"other.example": login()}}], ids=str)
def test_without_a_login_access_is_refused_with_advice(guarded, docker, config):
    docker(**config)
    with pytest.raises(RemoteError, match="refused") as caught:
        RegistryType().open(f"oci://{guarded}/zoo").resolve(FIRST)
    assert caught.value.permanent
    assert "credentials" in caught.value.hint


def test_a_wrong_password_is_refused_and_not_shown(guarded, docker):
    docker(auths={guarded: login("wrong password")})
    with pytest.raises(RemoteError, match="refused") as caught:
        RegistryType().open(f"oci://{guarded}/zoo").resolve(FIRST)
    assert "wrong" not in str(caught.value)
    assert caught.value.permanent


@pytest.mark.parametrize("name", ["{}", "http://{}"])
def test_what_docker_login_wrote_is_used(guarded, docker, tmp_path, name):
    docker(auths={name.format(guarded): login()})
    round_trip(guarded, tmp_path)


def test_what_skopeo_login_wrote_is_used(guarded, docker, tmp_path, monkeypatch):
    words = ["login", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json"), "-u", USER, "--password-stdin"]
    skopeo = program("skopeo", "apt-get install skopeo")
    subprocess.run([skopeo, *words, guarded], input=PASSWORD, text=True, check=True, capture_output=True)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    round_trip(guarded, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="the helper is a shell script")
@pytest.mark.parametrize("how", ["credHelpers", "credsStore"])
def test_a_credential_helper_is_asked(guarded, docker, tmp_path, monkeypatch, how):
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": guarded, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\n[ \"$(cat)\" = {guarded} ] && [ $1 = get ] && echo '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    docker(**{how: {guarded: "test"} if how == "credHelpers" else "test"})
    round_trip(guarded, tmp_path)


def test_a_helper_that_is_missing_or_none_is_named(guarded, docker):
    docker(credsStore="absent")
    with pytest.raises(RemoteError, match="docker-credential-absent"):
        RegistryType().open(f"oci://{guarded}/zoo").resolve(FIRST)
    docker(credsStore="../../bin/sh")
    with pytest.raises(MalformedError, match="helper"):
        RegistryType().open(f"oci://{guarded}/zoo").resolve(FIRST)


def test_a_damaged_login_is_named(guarded, docker):
    docker(auths={guarded: {"auth": "not base64!"}})
    with pytest.raises(MalformedError, match=r"config\.json"):
        RegistryType().open(f"oci://{guarded}/zoo").resolve(FIRST)


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def tokens(tmp_path, docker):
    """A registry that wants tokens, and the server that signs them with openssl; ``seen`` holds scopes."""
    key, cert, der = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "cert.der"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=zoo"]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True)
    subprocess.run(["openssl", "x509", "-in", cert, "-outform", "der", "-out", der], check=True)

    def sign(claims):
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der.read_bytes()).decode()]}
        text = ".".join(encoded(json.dumps(each).encode()) for each in (header, claims))
        words = ["openssl", "dgst", "-sha256", "-sign", key]
        signed = subprocess.run(words, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{encoded(signed.stdout)}"

    def answer(it):
        if it.headers.get("Authorization") != "Basic " + login()["auth"]:
            it.reply(401, b"who are you?")
            return
        query = parse_qs(urlsplit(it.path).query)
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "zoo", "sub": USER, "aud": query["service"][0], "nbf": now - 5, "iat": now, "access": access}
        it.reply(200, json.dumps({"token": sign({**claims, "exp": now + it.server.seconds})}).encode())

    server, port = FaultyServer(answer), free_port()
    server.seconds = 300
    auth = {"realm": f"{server.url}/token", "service": "registry", "issuer": "zoo", "rootcertbundle": str(cert)}
    with threaded(server), start(tmp_path, {"token": auth}, port):
        server.host = f"127.0.0.1:{port}"
        docker(auths={server.host: login()})
        yield server


class TestRegistryWithTokens(WriteContract):
    @pytest.fixture
    def connect(self, tokens):
        return lambda: RegistryType().open(f"oci://{tokens.host}/zoo")

    def test_every_ref_is_listed(self, tokens, remote):
        """The catalogue is for those whose tokens say so; this registry's give it to the user."""
        super().test_every_ref_is_listed(remote)


def test_tokens_are_asked_for_once_a_repository_and_power(tokens, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    push(zoo, RegistryType().open(f"oci://{tokens.host}/zoo"), FIRST)
    scopes = [parse_qs(urlsplit(path).query)["scope"][0] for _, path, _ in tokens.seen]
    assert scopes[0] == "repository:zoo/net:pull"
    # The store's other model is looked for too: its blobs need not be sent again.
    assert set(scopes) <= {
        "repository:zoo/net:pull",
        "repository:zoo/net:pull,push",
        "repository:zoo/net:push,pull",
        "repository:zoo/acme/other:pull",
    }
    assert len(scopes) < 20  # eight threads may each find out at first that they need one


def test_a_blob_of_another_model_is_taken_over_with_a_token_for_both(tokens, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    push(zoo, RegistryType().open(f"oci://{tokens.host}/zoo"), FIRST)
    tokens.seen.clear()
    remote = RegistryType().open(f"oci://{tokens.host}/zoo")
    report = push(zoo, remote, FIRST, target=Ref.parse("renamed:1"))
    asked = [set(parse_qs(urlsplit(path).query)["scope"]) for _, path, _ in tokens.seen]
    assert any(
        {"repository:zoo/renamed", "repository:zoo/net"} == {each.rpartition(":")[0] for each in scopes}
        for scopes in asked
    )
    assert remote.resolve(report.ref).digest == report.ref.digest


def test_an_expired_token_is_renewed(tokens, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    remote = RegistryType().open(f"oci://{tokens.host}/zoo")
    push(zoo, remote, FIRST)
    remote._web._credentials._tokens = dict.fromkeys(remote._web._credentials._tokens, "Bearer expired")
    assert remote.resolve(FIRST).digest == zoo.refs.get(FIRST).descriptor.digest


def test_a_token_server_that_refuses_is_an_error(tokens, docker):
    docker(auths={tokens.host: login("wrong password")})
    with pytest.raises(RemoteError, match="refused") as caught:
        RegistryType().open(f"oci://{tokens.host}/zoo").resolve(FIRST)
    assert "wrong" not in str(caught.value)


class Challenge:
    def __init__(self, text):
        self.headers = {"WWW-Authenticate": text}


def test_passwords_do_not_leave_encryption(docker):
    docker(auths={"host": login()})
    credentials = RegistryCredentials("https://host")
    with pytest.raises(RemoteError, match="unencrypted"):
        credentials.challenged(Challenge('Bearer realm="http://host/token"'), "GET", "https://host/v2/a/manifests/1")


def test_credentials_are_for_one_host(docker):
    docker(auths={"host": login(), "other": login()})
    credentials = RegistryCredentials("https://host")
    assert credentials.challenged(Challenge('Basic realm="x"'), "GET", "https://host/v2/")
    assert credentials.header("GET", "https://host/v2/").startswith("Basic ")
    for url in ("https://other/v2/", "http://host/v2/", "https://host:444/v2/"):
        assert credentials.header("GET", url) is None
        assert not credentials.challenged(Challenge('Basic realm="x"'), "GET", url)
    assert not credentials.challenged(Challenge("Negotiate"), "GET", "https://host/v2/")
