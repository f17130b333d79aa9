"""Settings: precedence, sources, and errors that name the key, the place and the limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegc import errors
from edgegc.settings import Settings
from edgegc.settings_source import environment_name, keys, load


def refused(
    tmp_path: Path, *, toml: str | None = None, flags: dict[str, object] | None = None, **environ: str
) -> str:
    config = None
    if toml is not None:
        config = tmp_path / "config.toml"
        config.write_text(toml)
    with pytest.raises(errors.Invalid) as caught:
        load(config, flags or {}, environ, default_data_dir=tmp_path)
    return caught.value.message


def test_without_any_source_the_defaults_hold_and_say_so(tmp_path: Path) -> None:
    settings, sources = load(None, {}, {}, default_data_dir=tmp_path)
    assert settings.data.dir == tmp_path
    assert settings.limits == Settings().limits
    assert set(sources) == set(keys())
    assert set(sources.values()) == {"default"}


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[log]\nlevel = "error"\nformat = "json"\n[backup]\nkeep = 9\n')
    settings, sources = load(
        config,
        {"log.level": "debug", "nebula.path": None},
        {"EDGEGC_LOG_LEVEL": "warning", "EDGEGC_LOG_FORMAT": "console", "PATH": "/bin"},
        default_data_dir=tmp_path,
    )
    assert (settings.log.level, settings.log.format, settings.backup.keep) == ("debug", "console", 9)
    assert (sources["log.level"], sources["log.format"]) == ("--log-level", "EDGEGC_LOG_FORMAT")
    assert sources["backup.keep"] == str(config)


def test_the_data_directorys_own_file_is_read_unless_another_is_named(tmp_path: Path) -> None:
    (tmp_path / "edgegc.toml").write_text("[backup]\nkeep = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("")
    assert load(None, {"data.dir": tmp_path}, {}).settings.backup.keep == 7
    assert load(other, {"data.dir": tmp_path}, {}).settings.backup.keep == Settings().backup.keep


def test_the_data_directory_may_come_from_the_environment(tmp_path: Path) -> None:
    loaded = load(None, {}, {"EDGEGC_DATA_DIR": str(tmp_path)}, default_data_dir=Path("/elsewhere"))
    assert loaded.settings.data.dir == tmp_path
    assert loaded.sources["data.dir"] == "EDGEGC_DATA_DIR"


def test_a_data_directory_cannot_send_us_to_another_one(tmp_path: Path) -> None:
    (tmp_path / "edgegc.toml").write_text('[data]\ndir = "/elsewhere"\n')
    with pytest.raises(errors.Invalid, match=r"data\.dir in .* must be the directory"):
        load(None, {"data.dir": tmp_path}, {})


def test_a_path_in_a_file_is_relative_to_that_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[tls]\ncertificate = "c.pem"\nkey = "/k.pem"\n')
    loaded = load(config, {}, {}, default_data_dir=tmp_path)
    assert loaded.settings.tls.certificate == tmp_path / "c.pem"
    assert loaded.settings.tls.key == Path("/k.pem")
    assert loaded.settings.tls.mode == "files"
    assert loaded.sources["tls.mode"] == "tls.certificate is given"


def test_the_environment_can_say_lists_and_switches(tmp_path: Path) -> None:
    environ = {"EDGEGC_API_LISTEN": "127.0.0.1:1, [::1]:0", "EDGEGC_LIMITS_ENABLED": "off"}
    settings = load(None, {}, environ, default_data_dir=tmp_path).settings
    assert settings.api.listen == ("127.0.0.1:1", "[::1]:0")
    assert settings.limits.enabled is False


@pytest.mark.parametrize("key", keys())
def test_every_key_can_be_set_by_its_environment_variable(key: str, tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    default = getattr(getattr(Settings(), section), name)
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    loaded = load(None, {}, {environment_name(key): text}, default_data_dir=tmp_path)
    assert loaded.sources[key] == environment_name(key)


def test_reserved_names_are_not_settings(tmp_path: Path) -> None:
    environ = {f"EDGEGC_{name}": "x" for name in ("URL", "TOKEN", "PIN", "KEY", "DEBUG")}
    assert set(load(None, {}, environ, default_data_dir=tmp_path).sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[api]\nlistn = []", "api.listn in {file} is not a setting; did you mean api.listen?"),
        ("[apis]\nlisten = []", "apis in {file} is not a section; did you mean api?"),
        ("listen = []", "listen in {file} is not a setting; did you mean api.listen?"),
        ("api = 1", "api in {file} must be a section: write [api] on a line of its own"),
        ("[limits]\nconnections = 0", "limits.connections ({file}): expected a whole number >= 1, not 0"),
        ("[limits]\nconnections = '5'", "limits.connections ({file}): expected a whole number, not '5'"),
        ("[tls]\nmode = 'on'", "tls.mode ({file}): expected one of off, self-signed, files, not 'on'"),
        ("[api]\nlisten = ['8080']", "api.listen: '8080' must be host:port, with a port of at most 65535"),
        ("[api]\nlisten = ['127.0.0.1:70000']", "api.listen: '127.0.0.1:70000' must be host:port"),
        ("[api]\nlisten = []", "api.listen must name at least one host:port"),
        ("[api]\nlisten = ['0.0.0.0:80']", "api.listen 0.0.0.0:80 is not loopback and would be clear text"),
        ("[api]\nlisten = [':80']", "api.listen :80 is not loopback and would be clear text"),
        ("[api]\npublic_urls = ['box']", "api.public_urls: 'box' must be like https://"),
        ("[api]\ntrusted_proxies = ['box']", "api.trusted_proxies: 'box' does not appear to be"),
        ("[api]\ngraceful_timeout_s = nan", "api.graceful_timeout_s ({file}): expected a number"),
        ("[tls]\nmode = 'files'\nkey = 'k'", "tls.certificate is missing: tls.mode 'files' needs"),
        ("[limits]\nenabled = false\n[tls]\nmode = 'self-signed'\n[api]\nlisten = ['10.0.0.1:1']", "limits.enabled = false is"),
        ("[api", "{file} is not TOML:"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_in_a_sentence_that_names_it(tmp_path: Path, toml: str, message: str) -> None:
    assert refused(tmp_path, toml=toml).startswith(message.format(file=tmp_path / "config.toml"))


def test_an_unknown_environment_variable_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, EDGEGC_API_LISTN="x")
        == "EDGEGC_API_LISTN is not a setting; did you mean EDGEGC_API_LISTEN?"
    )


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match=r"cannot read the settings file .*absent: No such file"):
        load(tmp_path / "absent", {}, {}, default_data_dir=tmp_path)


def test_clear_text_beyond_loopback_must_be_asked_for_out_loud(tmp_path: Path) -> None:
    flags = {"api.listen": ("0.0.0.0:8080",), "api.insecure_http": True}
    assert load(None, flags, {}, default_data_dir=tmp_path).settings.api.insecure_http
