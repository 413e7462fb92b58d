"""Settings: four sources, one answer for each key, and one plain line for each thing that is wrong."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from typer.testing import CliRunner

from holdfast import config
from holdfast.cli.config import app
from holdfast.config import Key, Loaded, Settings, describe, json_schema, load
from holdfast.config.files import FILES
from holdfast.errors import Misconfigured
from holdfast.guard.spec import ToolLimits

KEYS = [key for section in describe() for key in section.keys]
key_of = {key.name: key for key in KEYS}
INNER = [inner for key in KEYS for inner in key.keys]
OF_TOOLS = [key for key in INNER if key.name.startswith("resilience.tools.")]
_RATE = re.compile(r"[^.;]*? a (second|minute)\b")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(text: str) -> None:
    Path("holdfast.toml").write_text(text, "utf-8")


def wrong(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    **variables: str,
) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load(path, environ={**(environ or {}), **variables}, flags=flags or {})
    return caught.value.detail.split("\n")


def value_of(loaded: Loaded, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(loaded.settings, section), key)


def specs() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section's spec, and those of named tables."""
    for name, spec in config._specs().items():
        yield name, spec
        for key in describe_section(name):
            if key.keys:
                yield f"{key.name}.NAME", get_args(spec.model_fields[key.attribute].annotation)[1]


def describe_section(name: str) -> tuple[Key, ...]:
    return next(section.keys for section in describe() if section.name == name)


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[BaseModel]], None]]:
    """Puts other settings in place of ours."""

    def put(settings: type[BaseModel]) -> None:
        monkeypatch.setattr(config, "Settings", settings)
        forget()

    def forget() -> None:
        for cached in (config.describe, config._keys):
            cached.cache_clear()

    yield put
    monkeypatch.undo()
    forget()


# Sources and precedence


def test_without_any_source_everything_is_default() -> None:
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert loaded.file is None
    assert {loaded.origin(key.name) for key in KEYS} == {"default"}


def test_the_later_source_wins_and_the_origin_says_which() -> None:
    toml("[server]\nport = 1\nhost = '::1'\nbody_timeout_s = 2\nsession_wait_s = 3")
    loaded = load(
        environ={"HOLDFAST_SERVER__PORT": "4", "HOLDFAST_SERVER__BODY_TIMEOUT_S": "5"}, flags={"server.port": 6}
    )
    assert {name: (value_of(loaded, name), loaded.origin(name)) for name in ("server.port", "server.host")} == {
        "server.port": (6, "--port"),
        "server.host": ("::1", "holdfast.toml"),
    }
    assert loaded.origin("server.body_timeout_s") == "HOLDFAST_SERVER__BODY_TIMEOUT_S"
    assert loaded.origin("llm.model") == "default"


def test_another_systems_variable_sets_a_key_where_our_own_does_not() -> None:
    toml("[telemetry]\nmetrics_namespace = 'file'")
    theirs = {"AGENT_METRICS_NAMESPACE": "theirs"}
    loaded = load(environ=theirs)
    assert loaded.settings.telemetry.metrics_namespace == "theirs"
    assert loaded.origin("telemetry.metrics_namespace") == "AGENT_METRICS_NAMESPACE"
    for environ in (theirs | {"HOLDFAST_TELEMETRY__METRICS_NAMESPACE": "ours"}, {"AGENT_METRICS_NAMESPACE": ""}):
        loaded = load(environ=environ)
        assert loaded.settings.telemetry.metrics_namespace == environ.get("HOLDFAST_TELEMETRY__METRICS_NAMESPACE", "")
    must_be = "must be text that matches ^([A-Za-z_][A-Za-z0-9_]*)?$, such as security_agent"
    assert wrong(AGENT_METRICS_NAMESPACE="of agents") == [
        f'AGENT_METRICS_NAMESPACE: telemetry.metrics_namespace {must_be}, got "of agents"'
    ]


def test_a_flag_that_was_not_given_sets_nothing() -> None:
    assert load(environ={}, flags={"telemetry.log_level": None}).origin("telemetry.log_level") == "default"


def test_a_flag_for_no_such_key_is_a_mistake_in_the_program() -> None:
    with pytest.raises(KeyError):
        load(environ={}, flags={"server.prot": 1})


def test_the_file_may_be_toml_yaml_or_yml_and_is_found_where_the_process_stands(here: Path) -> None:
    for name in FILES:
        (here / name).write_text("[server]\nport = 7" if name.endswith("toml") else "server:\n  port: 7\n")
        loaded = load(environ={})
        assert (loaded.settings.server.port, loaded.origin("server.port"), loaded.file) == (7, name, Path(name))
        (here / name).unlink()


def test_a_given_path_wins_over_the_variable_and_the_variable_over_the_file_found(here: Path) -> None:
    for port, name in enumerate(["given.yaml", "named.yaml", "holdfast.yaml"]):
        (here / name).write_text(f"server: {{port: {port}}}")
    assert load(Path("given.yaml"), environ={"HOLDFAST_CONFIG": "named.yaml"}).settings.server.port == 0
    assert load(environ={"HOLDFAST_CONFIG": "named.yaml"}).settings.server.port == 1
    assert load(environ={"HOLDFAST_CONFIG": ""}).settings.server.port == 2


def test_two_files_in_the_working_directory_are_refused(here: Path) -> None:
    toml("")
    (here / "holdfast.yml").touch()
    assert wrong() == ["holdfast.toml and holdfast.yml are both here; keep one, or name one with --config"]
    assert load(Path("holdfast.yml"), environ={}).file == Path("holdfast.yml")


def test_an_empty_file_and_an_empty_section_mean_defaults(here: Path) -> None:
    for text in ("", "server:\nllm:\n", "---\n"):
        (here / "holdfast.yaml").write_text(text)
        assert load(environ={}).settings == Settings()


def test_a_list_in_the_environment_is_json_or_separated_by_commas() -> None:
    for text in ('["a.py:x", "b:y"]', "a.py:x,b:y", " a.py:x , b:y ,"):
        assert load(environ={"HOLDFAST_AGENT__TARGETS": text}).settings.agent.targets == ("a.py:x", "b:y")
    assert load(environ={"HOLDFAST_AGENT__TARGETS": ""}).settings.agent.targets == ()


def test_an_empty_text_for_an_optional_key_means_none() -> None:
    toml('[server]\ntls_cert = ""')
    loaded = load(environ={"HOLDFAST_LLM__BASE_URL": ""})
    assert (loaded.settings.server.tls_cert, loaded.settings.llm.base_url) == (None, None)


def test_a_later_source_hides_a_wrong_value_of_an_earlier_one() -> None:
    toml("[server]\nport = 'eighty'")
    assert load(environ={}, flags={"server.port": 80}).settings.server.port == 80


def test_a_byte_order_mark_is_no_part_of_the_file() -> None:
    Path("holdfast.toml").write_bytes(b"\xef\xbb\xbf[server]\r\nport = 7\r\n")
    assert load(environ={}).settings.server.port == 7


# Files that cannot be read


@pytest.mark.parametrize("name", ["absent.toml", "absent.yaml"])
def test_a_given_file_that_is_missing_is_refused_and_named(name: str) -> None:
    assert wrong(Path(name)) == [f"{name}: cannot be read: No such file or directory; name another with --config"]
    (line,) = wrong(HOLDFAST_CONFIG=name)
    assert line == f"HOLDFAST_CONFIG: there is no file {name}; correct the variable, or unset it"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.toml", b"[server]\nport = \n", "a.toml, line 2: is not valid TOML: Invalid value"),
        ("a.toml", b"[server]\nport=1\nport=2\n", "a.toml, line 3: is not valid TOML: Cannot overwrite a value"),
        ("a.toml", b"\xff", "a.toml: cannot be read: it is not UTF-8 text; name another with --config"),
        ("a.yaml", b"server:\n  port: 1\n  port: 2\n", "a.yaml, line 3: is not valid YAML: port is there twice"),
        ("a.yaml", b"server: {port: 1}\nserver: {}\n", "a.yaml, line 2: is not valid YAML: server is there twice"),
        ("a.yaml", b"- server\n", "a.yaml: must be a mapping of sections, got ['server']"),
        ("a.yaml", b"port\n", 'a.yaml: must be a mapping of sections, got "port"'),
        ("a.json", b"{}", "a.json: must end in .toml, .yaml or .yml"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_refused_with_its_line(
    here: Path, name: str, content: bytes, line: str
) -> None:
    (here / name).write_bytes(content)
    assert wrong(Path(name)) == [line]


@pytest.mark.parametrize(
    "text",
    ["server: [", "server: !!python/object:os.system {}", "a: *b", "a: \x00", "server: {host: 2020-13-45}", "? [a]"],
)
def test_whatever_is_wrong_with_a_yaml_file_takes_one_line(here: Path, text: str) -> None:
    (here / "a.yaml").write_text(text)
    (line,) = wrong(Path("a.yaml"))
    assert line.startswith("a.yaml")


# What is wrong, and where


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nprot = 1", "unknown key server.prot; did you mean server.port?"),
        ("[servr]\nport = 1", "unknown section servr; did you mean server?"),
        ("port = 1", "unknown key port; did you mean server.port?"),
        ("[xyzzy]\na = 1", "unknown section xyzzy; `holdfast config schema` lists everything there is"),
        ("server = 1", "server must be a table with keys of its own; its value is not shown"),
        ("[llm]\ninstructions = 'a'", "unknown key llm.instructions; did you mean agent.instructions?"),
        ("[server]\nxyzzy = 1", "unknown key server.xyzzy; `holdfast config schema` lists everything there is"),
        ("server.port = 'eighty'", 'server.port must be a whole number, got "eighty"'),
        ("server.port = 99999", "server.port must be between 0 and 65535, got 99999"),
        ("server.port = 1.5", "server.port must be a whole number, got 1.5"),
        ("server.port = true", "server.port must be a whole number, got true"),
        ("server.port.a = 1", "server.port must be a whole number, got {'a': 1}"),
        ("server.body_timeout_s = 'x'", 'server.body_timeout_s must be a number, got "x"'),
        ("server.body_timeout_s = true", "server.body_timeout_s must be a number, got true"),
        ("server.body_timeout_s = 0", "server.body_timeout_s must be greater than 0 and at most 3600, got 0"),
        ("server.body_timeout_s = nan", "server.body_timeout_s must be greater than 0 and at most 3600, got nan"),
        ("server.session_wait_s = inf", "server.session_wait_s must be between 0 and 3600, got inf"),
        ("server.host = 3", "server.host must be text, got 3"),
        ("server.cors_origins = 'a'", 'server.cors_origins must be a list of texts, got "a"'),
        ("server.cors_origins = ['a', 1]", "server.cors_origins must be a list of texts, got ['a', 1]"),
        ("server.tls_cert = 3", "server.tls_cert must be a path, got 3"),
        ("telemetry.log_level = 'loud'", 'telemetry.log_level must be one of debug, info, warning, error, got "loud"'),
        ("telemetry.log_level = 3", "telemetry.log_level must be one of debug, info, warning, error, got 3"),
        ("agent.instructions = 3", "agent.instructions must be text, got 3"),
        (
            "store.url = 'mysql:x'",
            "store.url: must be memory:, or begin with sqlite:, postgresql:// or postgres://; its value is not shown",
        ),
        (
            "server.tls_cert = 'c.pem'",
            'server: tls_cert and tls_key go together: set both, or neither; got tls_cert = "c.pem"',
        ),
    ],
)
def test_a_problem_names_the_file_the_key_the_value_and_what_is_allowed(text: str, line: str) -> None:
    toml(text)
    assert wrong() == [f"holdfast.toml: {line}"]


def test_a_problem_names_the_variable_or_the_flag_that_caused_it() -> None:
    assert wrong(HOLDFAST_SERVER__PORT="99999") == [
        'HOLDFAST_SERVER__PORT: server.port must be between 0 and 65535, got "99999"'
    ]
    assert wrong(HOLDFAST_AGENT__TARGETS="[x") == [
        'HOLDFAST_AGENT__TARGETS: agent.targets is not valid JSON: Expecting value: line 1 column 2 (char 1), got "[x"'
    ]
    assert wrong(flags={"server.port": -1}) == ["--port: server.port must be between 0 and 65535, got -1"]


def test_settings_that_do_not_fit_together_name_every_source_involved() -> None:
    toml("[server]\ntls_cert = 'c.pem'\nport = 1")
    sources, values = "holdfast.toml, HOLDFAST_SERVER__TLS_KEY", 'tls_cert = "c.pem", tls_key = null'
    reason = "tls_cert and tls_key go together: set both, or neither"
    assert wrong(HOLDFAST_SERVER__TLS_KEY="") == [f"{sources}: server: {reason}; got {values}"]


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("HOLDFAST_SERVER__PROT", "did you mean HOLDFAST_SERVER__PORT?"),
        ("HOLDFAST_SERVER_PORT", "did you mean HOLDFAST_SERVER__PORT?"),
        ("HOLDFAST_PORT", "did you mean HOLDFAST_SERVER__PORT?"),
        ("HOLDFAST_XYZZY", "`holdfast config schema` lists everything there is"),
    ],
)
def test_an_unknown_variable_suggests_the_nearest(variable: str, advice: str) -> None:
    assert wrong(environ={variable: "80"}) == [f"unknown variable {variable}; {advice}"]


def test_what_kubernetes_sets_for_a_service_called_holdfast_is_not_ours() -> None:
    """Every pod beside such a Service gets these; refusing them would keep the server from starting."""
    service = {
        "HOLDFAST_SERVICE_HOST": "10.0.0.1",
        "HOLDFAST_SERVICE_PORT": "80",
        "HOLDFAST_SERVICE_PORT_HTTP": "80",
        "HOLDFAST_PORT": "tcp://10.0.0.1:80",
        "HOLDFAST_PORT_80_TCP": "tcp://10.0.0.1:80",
        "HOLDFAST_PORT_80_TCP_PROTO": "tcp",
        "HOLDFAST_PORT_80_TCP_PORT": "80",
        "HOLDFAST_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=service).settings == Settings()


def test_every_problem_is_told_at_once_one_line_each() -> None:
    toml("[server]\nport = 'x'\nhost = 3\nprot = 1\n[llm]\napi_key = 'env:ABSENT'\nmax_output_tokens = 0\n[nowhere]")
    assert len(wrong(HOLDFAST_STORE__URL="x", HOLDFAST_NOPE="1")) == 8


def test_a_long_value_is_cut_and_a_line_break_in_one_stays_on_the_line() -> None:
    (line,) = wrong(HOLDFAST_SERVER__PORT="1\n" * 500)
    assert len(line) < 250
    toml('"a\\nb" = 1')
    assert len(wrong()) == 1


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KEYS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from([key.attribute for key in INNER]), inner)
            | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        ),
    ),
)
def test_whatever_a_key_is_set_to_it_loads_or_is_refused_in_plain_sentences(key: Key, value: object) -> None:
    """However wrong the value, the answer is ours: lines that name flag and key, in no other library's words."""
    try:
        load(environ={}, flags={key.name: value})
    except Misconfigured as refused:
        lines = refused.detail.split("\n")
        assert len(lines) == 1 or key.keys
        for line in lines:
            assert re.match(f"{key.flag}: (unknown key )?{key.name.partition('.')[0]}", line)
            assert not re.search(r"pydantic|https?:|Input should|Value error", line)


def test_a_constraint_nobody_translated_yet_is_noticed() -> None:
    """A spec that uses a constraint ``describe`` has no words for would be refused in misleading ones."""
    told = {"title", "description", "default", "type", "format", "writeOnly", "items", "anyOf", "enum", "pattern"}
    told |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "additionalProperties", "examples", "x-also"}
    for name, spec in specs():
        for key, about in spec.model_json_schema()["properties"].items():
            what = f"{name}.{key}"
            for shape in (about, *about.get("anyOf", [])):
                assert set(shape) <= told, what
                assert shape.get("items", {"type": "string"}) == {"type": "string"}, what
                assert set(shape.get("additionalProperties", {})) == (
                    {"$ref"} if shape.get("type") == "object" else set()
                )
            assert about.get("anyOf", [{"type": "null"}])[1:] in ([], [{"type": "null"}]), what


def test_a_spec_may_refuse_a_value_in_its_own_words(instead: Callable[[type[BaseModel]], None]) -> None:
    class Strict(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
        """A part. Section ``server``."""

        ratio: float = Field(0.5, ge=0)
        """Share, at least 0."""

        name: str = "a"
        """What it is called; not b."""

        @field_validator("name")
        @classmethod
        def _not_b(cls, name: str) -> str:
            if name == "b":
                raise ValueError("b is taken")
            return name

    class Other(BaseModel):
        server: Strict = Strict()

    instead(Other)
    assert wrong(flags={"server.name": "b"}) == ['--name: server.name: b is taken, got "b"']
    assert wrong(flags={"server.ratio": -1}) == ["--ratio: server.ratio must be at least 0, got -1"]


# Named tables


def test_a_tool_has_limits_of_its_own_in_toml_yaml_and_the_environment(here: Path) -> None:
    toml("[resilience.tools.web_search]\ntimeout_s = 10\nper_s = 2\n[resilience.tools.'a b']")
    (here / "my.yaml").write_text("resilience: {tools: {web_search: {timeout_s: 10, per_s: 2}, a b: }}")
    written = '{"web_search": {"timeout_s": 10, "per_s": 2}, "a b": {}}'
    for loaded in (
        load(environ={}),
        load(Path("my.yaml"), environ={}),
        load(environ={"HOLDFAST_RESILIENCE__TOOLS": written}),
    ):
        limits = {"web_search": ToolLimits(timeout_s=10, per_s=2), "a b": ToolLimits()}
        assert loaded.settings.resilience.tools == limits


def test_a_later_source_replaces_named_tables_as_a_whole() -> None:
    toml("[resilience.tools.a]\nper_s = 1\n[resilience.tools.b]\nper_s = 0")
    loaded = load(environ={"HOLDFAST_RESILIENCE__TOOLS": '{"a": {"timeout_s": 1}}'})
    assert loaded.settings.resilience.tools == {"a": ToolLimits(timeout_s=1)}
    assert loaded.origin("resilience.tools") == "HOLDFAST_RESILIENCE__TOOLS"
    assert set(loaded.origins) == set(key_of)


@pytest.mark.parametrize("text", ["", " ", "{}", "null"])
def test_nothing_in_the_variable_is_no_table(text: str) -> None:
    toml("[resilience.tools.a]\nper_s = 1")
    assert load(environ={"HOLDFAST_RESILIENCE__TOOLS": text}).settings.resilience.tools == {}


def test_tables_whose_lines_are_all_commented_out_are_empty(here: Path) -> None:
    (here / "holdfast.yaml").write_text("resilience:\n  tools:\n")
    assert load(environ={}).settings == Settings()
    (here / "holdfast.yaml").write_text("resilience:\n  tools:\n    a:\n")
    assert load(environ={}).settings.resilience.tools == {"a": ToolLimits()}


def test_an_empty_text_in_a_table_means_none() -> None:
    toml("[resilience.tools.a]\nper_s = ''")
    assert load(environ={}).settings.resilience.tools == {"a": ToolLimits()}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.per_s = 0", "resilience.tools.a.per_s must be between 1 and 1000000, got 0"),
        ("a.per_s = 'x'", 'resilience.tools.a.per_s must be a whole number, got "x"'),
        ("a.per_s = true", "resilience.tools.a.per_s must be a whole number, got true"),
        ("a.per_s = [1]", "resilience.tools.a.per_s must be a whole number, got [1]"),
        ("a.timeout_s = 0", "resilience.tools.a.timeout_s must be greater than 0 and at most 86400, got 0"),
        ("a.timeout_s = nan", "resilience.tools.a.timeout_s must be greater than 0 and at most 86400, got nan"),
        ("'a.b \"'.per_s = 0", 'resilience.tools."a.b \\"".per_s must be between 1 and 1000000, got 0'),
        ("a.per_sec = 2", "unknown key resilience.tools.a.per_sec; did you mean resilience.tools.a.per_s?"),
        ("a.turn_s = 2", "unknown key resilience.tools.a.turn_s; did you mean resilience.turn_s?"),
        ("a.x = 2", "unknown key resilience.tools.a.x; `holdfast config schema` lists everything there is"),
        ("a.b.per_s = 2", "unknown key resilience.tools.a.b; `holdfast config schema` lists everything there is"),
        ("per_s = 2", "resilience.tools.per_s must be a table with keys of its own, got 2"),
        ("a = [{per_s = 2}]", "resilience.tools.a must be a table with keys of its own, got [{'per_s': 2}]"),
    ],
)
def test_a_problem_in_a_table_has_its_full_path(text: str, line: str) -> None:
    toml(f"[resilience.tools]\n{text}")
    assert wrong() == [f"holdfast.toml: {line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("3", "must be a table of named tables, got 3"),
        ("[1]", "must be a table of named tables, got [1]"),
        ('"a"', 'must be a table of named tables, got "a"'),
        ("a", 'is not valid JSON: Expecting value: line 1 column 1 (char 0), got "a"'),
        ('{"a": 1', 'is not valid JSON: Expecting \',\' delimiter: line 1 column 8 (char 7), got "{\\"a\\": 1"'),
        ('{"a": {}, "a": {}}', 'is not valid JSON: a is there twice, got "{\\"a\\": {}, \\"a\\": {}}"'),
    ],
)
def test_what_is_no_table_of_tables_is_refused_with_the_variable(text: str, line: str) -> None:
    assert wrong(HOLDFAST_RESILIENCE__TOOLS=text) == [f"HOLDFAST_RESILIENCE__TOOLS: resilience.tools {line}"]


def test_the_key_of_tables_is_refused_another_value_in_the_file() -> None:
    toml("resilience.tools = '{}'")
    assert wrong() == ['holdfast.toml: resilience.tools must be a table of named tables, got "{}"']


def test_a_table_may_not_be_there_twice_nor_be_named_by_something_else_than_text(here: Path) -> None:
    (here / "a.yaml").write_text("resilience:\n  tools:\n    a: {}\n    a: {}\n")
    assert wrong(Path("a.yaml")) == ["a.yaml, line 4: is not valid YAML: a is there twice"]
    (here / "a.yaml").write_text("resilience: {tools: {on: {per_s: 1}, 7: {per_s: 1}}}")
    assert wrong(Path("a.yaml")) == [
        f"a.yaml: resilience.tools: a name must be text, got {got}; put it in quotes" for got in ("true", "7")
    ]


def test_every_problem_in_every_table_is_told() -> None:
    toml("[resilience]\nturn_s = 0\n[resilience.tools]\na = {per_s = 0, timeout_s = 'x', x = 1}\nb.per_s = 0\nc = 3")
    paths = ["a.x", "a.timeout_s", "a.per_s", "b.per_s", "c"]
    lines = wrong()
    assert len(lines) == 6
    assert [path for path in paths if f"resilience.tools.{path} " in "\n".join(lines).replace(";", " ")] == paths


def test_a_table_keeps_nothing_of_its_neighbour() -> None:
    long = "a" * 200
    toml(
        f"[resilience.tools]\n{long}1.per_s = 1\n'{long} 1'.per_s = 1\n'{long} 2'.timeout_s = 1\n{long}2.timeout_s = 1"
    )
    tools = load(environ={}).settings.resilience.tools
    assert list(tools.values()) == [*[ToolLimits(per_s=1)] * 2, *[ToolLimits(timeout_s=1)] * 2]


def test_a_variable_for_a_key_in_a_table_is_told_the_one_for_them_all() -> None:
    variable = "HOLDFAST_RESILIENCE__TOOLS__WEB_SEARCH__PER_S"
    assert wrong(environ={variable: "2"}) == [f"unknown variable {variable}; did you mean HOLDFAST_RESILIENCE__TOOLS?"]


def test_a_table_may_hold_a_secret_and_have_rules_of_its_own(instead: Callable[[type[BaseModel]], None]) -> None:
    class Login(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
        """A login."""

        user: str | None = None
        """Who."""

        word: SecretStr | None = None
        """What they say."""

        @model_validator(mode="after")
        def _both(self) -> "Login":
            if (self.user is None) != (self.word is None):
                raise ValueError("user and word go together")
            return self

    class Door(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
        """A door. Section ``door``."""

        logins: dict[str, Login] = {}
        """Logins, by name."""

    class Other(BaseModel):
        door: Door = Door()

    instead(Other)
    toml("[door.logins.a]\nuser = 'ada'\nword = 'env:WORD'")
    loaded: Any = load(environ={"WORD": "hunter2"}).settings
    assert loaded.door.logins["a"].word.get_secret_value() == "hunter2"
    absent = "the variable WORD is not set; set it, or remove door.logins.a.word"
    assert wrong()[0] == f"holdfast.toml: door.logins.a.word is env:WORD, but {absent}"
    toml("[door.logins.a]\nuser = 'ada'")
    assert wrong() == ['holdfast.toml: door.logins.a: user and word go together; got user = "ada"']
    for text in ("logins = 'hunter2'", "logins.a = 'hunter2'", "logins.a = {user = 'ada', word = ['hunter2']}"):
        toml(f"[door]\n{text}")
        assert "its value is not shown" in wrong()[0]
        assert "hunter2" not in "".join(wrong())
    assert "hunter2" not in "".join(wrong(HOLDFAST_DOOR__LOGINS="{hunter2"))


# Secrets


def secret(loaded: Loaded) -> str | None:
    key = loaded.settings.llm.api_key
    return key.get_secret_value() if key else None


def test_a_secret_is_read_from_the_variable_or_file_it_names(here: Path) -> None:
    (here / "key").write_text("s3cret\n")
    toml("[llm]\napi_key = 'env:MY_KEY'")
    assert secret(load(environ={"MY_KEY": "from-env"})) == "from-env"
    assert secret(load(environ={"HOLDFAST_LLM__API_KEY": "file:key"})) == "s3cret"
    assert secret(load(environ={"HOLDFAST_LLM__API_KEY": "as-it-is"})) == "as-it-is"


def test_a_secret_that_is_not_there_names_the_key_and_where_it_was_looked_for(here: Path) -> None:
    toml("[llm]\napi_key = 'env:MY_KEY'")
    unset = "the variable MY_KEY is not set; set it, or remove llm.api_key"
    assert wrong() == [f"holdfast.toml: llm.api_key is env:MY_KEY, but {unset}"]
    toml("[llm]\napi_key = 'file:absent'")
    assert wrong() == [
        "holdfast.toml: llm.api_key is file:absent, but the file absent cannot be read: No such file or directory"
    ]
    (here / "empty").write_text("\n")
    toml("[llm]\napi_key = 'file:empty'")
    assert wrong() == ["holdfast.toml: llm.api_key is file:empty, but the file empty is empty"]


def test_a_secret_is_never_shown() -> None:
    toml("[llm]\napi_key = ['hunter2']")
    assert wrong() == ["holdfast.toml: llm.api_key must be secret text; its value is not shown"]
    toml("llm = 'hunter2'")
    assert "hunter2" not in "".join(wrong())
    toml("[llm]\napi_key = 'hunter2'")
    loaded = load(environ={})
    assert "hunter2" not in repr(loaded) + str(loaded.settings) + loaded.settings.model_dump_json()


def test_the_password_in_an_address_of_shared_state_is_never_shown() -> None:
    """Whether it is in force, or refused."""
    toml("[coord]\nurl = 'redis://me:hunter2@cache:6379/0'")
    loaded = load(environ={})
    assert loaded.settings.coord.url.get_secret_value() == "redis://me:hunter2@cache:6379/0"
    told = [repr(loaded), str(loaded.settings), loaded.settings.model_dump_json()]
    told += [run("show"), run("show", "--json"), run("check")]
    for value in ("'hunter2'", "['redis://hunter2']", "'mysql://me:hunter2@db'"):
        toml(f"[coord]\nurl = {value}")
        told += wrong()
    told += wrong(HOLDFAST_COORD__URL="hunter2")
    assert "hunter2" not in "".join(told)


# Every key, in every source


def values(key: Key) -> st.SearchStrategy[Any]:
    """Values that the key's spec takes, as JSON has them."""
    place, _, name = key.name.rpartition(".")
    shape = dict(specs())[place].model_json_schema()["properties"][name]
    shape = {**shape, **shape.get("anyOf", [{}])[0]}
    text = st.text(st.characters(exclude_categories=["C"]), min_size=1)
    lists = {
        "server.cors_origins": st.just("https://app.example"),
        "server.trusted_proxies": st.just("10.0.0.0/8"),
        "server.webhook_hosts": st.just("hooks.example"),
    }
    match shape:
        case {"enum": choices}:
            return st.sampled_from(choices)
        case {"pattern": pattern}:
            return st.from_regex(re.compile(pattern.replace(".+", "[a-z/.]+")), fullmatch=True)
        case {"type": "integer"}:
            return st.integers(shape["minimum"], shape["maximum"])
        case {"type": "number"}:
            return st.floats(shape.get("minimum", shape.get("exclusiveMinimum")), shape["maximum"]).filter(bool)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "array"}:
            return st.lists(lists.get(key.name, text))
        case {"type": "object"}:
            return st.dictionaries(text, st.fixed_dictionaries({}, optional={k.attribute: values(k) for k in key.keys}))
        case _ if key.name == "store.url":
            return st.from_regex(r"memory:|sqlite:[a-z./]+|postgres(ql)?://[a-z:@.]+", fullmatch=True)
        case _ if key.name == "server.webhook_secret":
            return st.binary(min_size=24, max_size=64).map(lambda key: f"whsec_{base64.b64encode(key).decode()}")
        case _ if key.name == "coord.url":
            return st.from_regex(r"local:|(rediss?|valkey|postgresql)://[a-z:@.]+", fullmatch=True)
        case _:
            return text


def as_toml(section: str, key: str, value: object) -> str:
    return f"[{section}]\n{key} = {inline(value)}\n"


def inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(name)} = {inline(held)}" for name, held in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def as_yaml(section: str, key: str, value: object) -> str:
    return yaml.safe_dump({section: {key: value}}, allow_unicode=True)


def in_order(*names: str, least: object, most: object) -> dict[str, dict[str, object]]:
    """What goes with each of some keys that must not be smaller than the one before."""
    return {
        name: {**dict.fromkeys(names[:at], least), **dict.fromkeys(names[at + 1 :], most)}
        for at, name in enumerate(names)
    }


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_key_means_the_same_in_toml_yaml_the_environment_and_a_flag(data: st.DataObject) -> None:
    """Whatever a key is set to, and wherever, the same value is in force."""
    alone = [key for key in KEYS if key.name != "monitor.agents"]  # Keys of an agent have to fit each other.
    key = data.draw(st.sampled_from(alone))
    value = data.draw(values(key))
    section, name = key.name.split(".")
    with_it: dict[str, dict[str, object]] = {
        "server.tls_cert": {"server.tls_key": "x.pem"},
        "server.tls_key": {"server.tls_cert": "x.pem"},
        "server.webhook_hosts": {"server.webhook_secret": f"whsec_{'A' * 32}"},
        **in_order("monitor.tell_ratio", "monitor.finish_ratio", "monitor.final_ratio", least=5e-324, most=1),
        **in_order("monitor.cls_warn", "monitor.cls_stop", "monitor.cls_window", least=2, most=100),
    }
    for kind in ("pair", "any", "err", "stale"):
        with_it |= in_order(f"monitor.{kind}_warn", f"monitor.{kind}_stop", least=2, most=100)
    others = with_it.get(key.name, {})
    for suffix, text in (("toml", as_toml(section, name, value)), ("yaml", as_yaml(section, name, value))):
        Path(f"given.{suffix}").write_text(text, "utf-8")
    loaded = {
        "given.toml": load(Path("given.toml"), environ={}, flags=others),
        "given.yaml": load(Path("given.yaml"), environ={}, flags=others),
        key.variable: load(
            environ={key.variable: value if isinstance(value, str) else json.dumps(value)}, flags=others
        ),
        key.flag: load(environ={}, flags={**others, key.name: value}),
    }
    first: Any = value_of(loaded["given.toml"], key.name)
    got = first.get_secret_value() if isinstance(first, SecretStr) else first
    if key.keys:
        got = {table: held.model_dump(exclude_unset=True) for table, held in first.items()}
    assert got == (tuple(value) if isinstance(value, list) else Path(value) if isinstance(first, Path) else value)
    for origin, one in loaded.items():
        assert value_of(one, key.name) == first
        assert one.origin(key.name) == origin


# What is described


def test_every_section_has_a_sentence_and_every_key_a_sentence_that_ends() -> None:
    for section in describe():
        assert section.doc.endswith("."), section.name
        assert "Section ``" not in section.doc
    for key in [*KEYS, *INNER]:
        assert key.doc.endswith("."), key.name
        assert key.doc[0].isupper() or key.doc[0] == "`", key.name


def test_the_class_docstring_of_every_spec_names_its_section() -> None:
    for name, spec in config._specs().items():
        assert f"Section ``{name}``." in (spec.__doc__ or ""), spec.__name__


def test_a_name_carries_its_unit() -> None:
    for key in [*KEYS, *INNER]:
        rate = re.search(r"(?:^|_)per_(s|minute)$", key.name.rpartition(".")[2])
        assert (rate and rate[1]) == (
            {"second": "s", "minute": "minute"}[told[1]] if (told := _RATE.match(key.doc)) else None
        )
        assert key.doc.startswith("Seconds") == (key.name.endswith("_s") and not rate), key.name
        assert ("in bytes" in key.doc) == key.name.endswith("_bytes"), key.name
        if key.type == "a number":
            assert re.search(r"_(s|ratio|confidence|drop|usd(_per_(day|month))?)$|agreement$", key.name), key.name


def test_a_key_in_a_table_that_may_be_none_says_whose_value_it_takes_then() -> None:
    """Its name alone would not say: the key for all may be called otherwise."""
    for key in INNER:
        if not key.optional:
            continue
        taken = re.search(r"None takes (?:the )?`(\w+)`", key.doc)
        assert taken or "None takes what the tool's own code" in key.doc or "None: nobody said" in key.doc, key.name
        inside, section = key.name.rpartition(".")[0], key.name.partition(".")[0]
        beside = {*key_of, *(other.name for other in INNER)}
        assert taken is None or {f"{section}.{taken[1]}", f"{inside}.{taken[1]}"} & beside, key.name


def test_every_spec_is_frozen_takes_no_unknown_key_and_has_a_default_for_every_key() -> None:
    for name, spec in specs():
        assert spec.model_config.get("frozen"), name
        assert spec.model_config.get("extra") == "forbid", name
        assert not [key for key, field in spec.model_fields.items() if field.is_required()]


def test_the_description_of_a_key_says_what_an_error_would() -> None:
    assert key_of["server.port"] == Key(
        name="server.port",
        type="a whole number",
        allowed="between 0 and 65535",
        default=8080,
        doc="TCP port to listen on; 0 takes any free one.",
        variable="HOLDFAST_SERVER__PORT",
        flag="--port",
        secret=False,
        optional=False,
    )
    (per_s,) = (key for key in key_of["resilience.tools"].keys if key.attribute == "per_s")
    assert (per_s.name, per_s.type, per_s.allowed, per_s.default, per_s.variable, per_s.optional) == (
        "resilience.tools.NAME.per_s",
        "a whole number",
        "between 1 and 1000000",
        None,
        "HOLDFAST_RESILIENCE__TOOLS",
        True,
    )
    assert key_of["llm.api_key"].secret
    assert key_of["coord.url"].secret
    assert key_of["server.tls_cert"].optional


def test_a_described_default_is_the_one_in_force() -> None:
    in_force = {section: spec().model_dump(mode="json") for section, spec in config._specs().items()}
    for key in KEYS:
        section, name = key.name.split(".")
        assert key.default == in_force[section][name] or key.secret, key.name


def test_the_schema_has_every_key() -> None:
    schema = json_schema()
    assert schema["title"] == "Holdfast settings"
    found = {
        f"{section}.{key}"
        for section, about in schema["properties"].items()
        for key in schema["$defs"][about["$ref"].rpartition("/")[2]]["properties"]
    }
    assert found == set(key_of)
    tools = schema["$defs"]["GuardSpec"]["properties"]["tools"]
    limits = schema["$defs"][tools["additionalProperties"]["$ref"].rpartition("/")[2]]
    assert {f"resilience.tools.NAME.{key}" for key in limits["properties"]} == {key.name for key in OF_TOOLS}
    assert limits["additionalProperties"] is False
    assert "required" not in limits


def test_a_default_in_the_schema_is_told_once_and_not_masked() -> None:
    schema = json_schema()
    assert {tuple(about) for about in schema["properties"].values()} == {("$ref",)}
    assert schema["$defs"]["CoordSpec"]["properties"]["url"]["default"] == "local:"


# The command


def run(*args: str, **environ: str) -> str:
    result = CliRunner().invoke(app, args, env=environ)
    if result.exception:
        raise result.exception
    return result.output


def test_check_names_the_file_it_used() -> None:
    assert run("check") == f"OK: no holdfast.toml here, 0 of {len(KEYS)} settings given\n"
    toml("server.port = 1")
    assert run("check") == f"OK: holdfast.toml, 1 of {len(KEYS)} settings given\n"


def test_check_takes_a_path_and_raises_what_is_wrong(here: Path) -> None:
    (here / "my.yaml").write_text("server: {port: x}")
    with pytest.raises(Misconfigured, match=r"my\.yaml: server\.port must be a whole number"):
        run("check", "--config", "my.yaml")
    with pytest.raises(Misconfigured, match="cannot be read"):
        run("show", "-c", "absent.toml")


def test_show_prints_value_and_origin_of_every_key_and_masks_secrets() -> None:
    toml("[llm]\napi_key = 'hunter2'\n[agent]\ninstructions = '''a\nb'''")
    lines = run("show", HOLDFAST_SERVER__PORT="81").splitlines()
    assert [line.split()[0] for line in lines] == [key.name for key in KEYS]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["server.port"] == ["81", "HOLDFAST_SERVER__PORT"]
    assert rows["llm.api_key"] == ["**********", "holdfast.toml"]
    assert rows["agent.instructions"] == ['"a\\nb"', "holdfast.toml"]
    assert len({line.rindex(line.split()[-1]) for line in lines}) == 1


def test_show_prints_a_row_for_each_key_of_each_table() -> None:
    toml("[resilience.tools.'a.b']\nper_s = 2\n[resilience.tools.c]\ntimeout_s = 1")
    rows = [line.split() for line in run("show").splitlines()]
    found = {row[0]: row[1:] for row in rows if row[0].startswith("resilience.tools")}
    assert {name: row for name, row in found.items() if not name.startswith("resilience.tools_")} == {
        'resilience.tools."a.b".effect': ["null", "default"],
        'resilience.tools."a.b".timeout_s': ["null", "default"],
        'resilience.tools."a.b".per_s': ["2", "holdfast.toml"],
        'resilience.tools."a.b".breaker_failures': ["null", "default"],
        'resilience.tools."a.b".breaker_open_s': ["null", "default"],
        "resilience.tools.c.effect": ["null", "default"],
        "resilience.tools.c.timeout_s": ["1.0", "holdfast.toml"],
        "resilience.tools.c.per_s": ["null", "default"],
        "resilience.tools.c.breaker_failures": ["null", "default"],
        "resilience.tools.c.breaker_open_s": ["null", "default"],
    }
    assert len(rows) == len(KEYS) - 1 + 2 * len(OF_TOOLS)
    assert run("check") == f"OK: holdfast.toml, 1 of {len(KEYS)} settings given\n"


def test_show_prints_tables_that_are_empty_and_a_default_that_could_be_a_secret() -> None:
    rows = {line.split()[0]: line.split()[1:] for line in run("show", HOLDFAST_RESILIENCE__TOOLS="{}").splitlines()}
    assert rows["resilience.tools"] == ["{}", "HOLDFAST_RESILIENCE__TOOLS"]
    assert rows["coord.url"] == ["local:", "default"]


def test_show_cuts_nothing_that_has_a_name_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cli.config.sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    toml("[resilience.tools.web_search]\nper_s = 2")
    shown = run("show", COLUMNS="80", HOLDFAST_LLM__MODEL="x" * 100)
    of_tools = {key.name.replace("NAME", "web_search") for key in INNER if key.name.startswith("resilience.tools.")}
    for name in {*key_of, *of_tools} - {"resilience.tools"}:
        assert f" {name} " in shown
    assert shown.count("x") >= 100
    assert "…" not in shown


def test_show_as_json_is_json() -> None:
    toml("[llm]\napi_key = 'hunter2'\n[resilience.tools.a]\nper_s = 2")
    shown = json.loads(run("show", "--json"))
    assert shown["llm.api_key"] == {"value": "**********", "origin": "holdfast.toml"}
    assert shown["server.port"] == {"value": 8080, "origin": "default"}
    assert shown["resilience.tools"] == {
        "value": {
            "a": {"effect": None, "timeout_s": None, "per_s": 2, "breaker_failures": None, "breaker_open_s": None}
        },
        "origin": "holdfast.toml",
    }
    assert set(shown) == set(key_of)


def test_schema_prints_the_schema() -> None:
    assert json.loads(run("schema")) == json_schema()
