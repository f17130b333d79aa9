"""Where settings come from: flags, then ``EDGEGC_SECTION_KEY``, then the TOML file, then the defaults. Validated once.

Every error is :class:`edgegc.errors.Invalid` and names the key, where its value came from, and the limit. Knows
nothing of what a setting does, beyond what must hold for the server to make sense of it.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from edgegc import errors
from edgegc.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "EDGEGC_"
RESERVED = frozenset({"URL", "TOKEN", "PIN", "KEY", "DATA_DIR", "DEBUG", "CONFIG_DIR"})
"""Names after the prefix that are not settings: the client's and the agent's. DATA_DIR is also ``data.dir``."""
FILE_NAME = "edgegc.toml"
"""In the data directory; read when it is there and no other file is named."""
MAX_FILE_BYTES = 1_048_576
FLAGS = {
    "data.dir": "--data-dir",
    "api.listen": "--listen",
    "api.public_urls": "--public-url",
    "api.insecure_http": "--insecure-http",
    "limits.enabled": "--limits",
    "nebula.path": "--nebula",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The keys that ``edgegc serve`` has a flag for."""
WORDS = {"on": "true", "yes": "true", "off": "false", "no": "false"}


class Loaded(NamedTuple):
    """Settings, and for every key (``section.name``) where its value came from, in words for a person."""

    settings: Settings
    sources: dict[str, str]


class _Value(NamedTuple):
    value: object
    source: str
    base: Path
    text: bool = False
    """From a place that knows only text: the environment."""


@functools.cache
def keys() -> dict[str, Any]:
    """Return every key with its type, in the order of ``settings.py``."""
    return {
        f"{section.name}.{key.name}": key.type
        for section in msgspec.structs.fields(Settings)
        for key in msgspec.structs.fields(section.type)
    }


def environment_name(key: str) -> str:
    """Return the environment variable of a key: ``api.listen`` is ``EDGEGC_API_LISTEN``."""
    return PREFIX + key.replace(".", "_").upper()


def load(
    config_file: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    default_data_dir: Path | None = None,
) -> Loaded:
    """Return the settings in force, and the source of each.

    ``flags`` maps keys to what the command line gave; None counts as not given. Without ``config_file`` the data
    directory's own ``edgegc.toml`` is read when there is one. Raises :class:`errors.Invalid`.
    """
    here = Path.cwd()
    given = {
        key: _Value(value, FLAGS.get(key, "flag"), here) for key, value in flags.items() if value is not None
    }
    from_environ = _read_environ(environ, here)
    found = from_environ | given
    if config_file is not None:
        found = _read_file(config_file) | found
    if "data.dir" not in found and default_data_dir is not None:
        found["data.dir"] = _Value(default_data_dir, "default", here)
    data_dir = _converted("data.dir", found["data.dir"]) if "data.dir" in found else Settings().data.dir
    own_file = data_dir / FILE_NAME
    if config_file is None and own_file.exists():
        in_own_file = _read_file(own_file)
        if "data.dir" in in_own_file and _converted("data.dir", in_own_file["data.dir"]) != data_dir:
            raise errors.Invalid(
                f"data.dir in {own_file} must be the directory that the file lies in; remove it there"
            )
        found = in_own_file | found
    sections: dict[str, dict[str, object]] = {}
    for key, value in found.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = _converted(key, value)
    settings = Settings(
        **{
            field.name: field.type(**sections.get(field.name, {}))
            for field in msgspec.structs.fields(Settings)
        }
    )
    sources = {key: found[key].source if key in found else "default" for key in keys()}
    if sources["tls.mode"] == "default" and settings.tls.certificate and settings.tls.key:
        # Who names a certificate wants it served.
        settings = msgspec.structs.replace(settings, tls=msgspec.structs.replace(settings.tls, mode="files"))
        sources["tls.mode"] = "tls.certificate is given"
    check(settings)
    return Loaded(settings, sources)


def check(settings: Settings) -> None:
    """Refuse what each key alone cannot show to be wrong. Raises :class:`errors.Invalid`, naming the key."""
    if not settings.api.listen:
        raise errors.Invalid("api.listen must name at least one host:port")
    for address in settings.api.listen:
        host, _ = split_address(address, key="api.listen")
        if not is_loopback(host):
            if settings.tls.mode == "off" and not settings.api.insecure_http:
                raise errors.Invalid(
                    f"api.listen {address} is not loopback and would be clear text: set tls.mode to 'self-signed', "
                    "give tls.certificate and tls.key, or say --insecure-http"
                )
            if not settings.limits.enabled:
                raise errors.Invalid(
                    f"limits.enabled = false is for laboratories: api.listen {address} is not loopback"
                )
    for url in settings.api.public_urls:
        if not re.fullmatch(r"https?://[^/\s?#]+/?", url):
            raise errors.Invalid(f"api.public_urls: {url!r} must be like https://203.0.113.9:8443")
    for network in settings.api.trusted_proxies:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise errors.Invalid(f"api.trusted_proxies: {error}") from None
    if settings.tls.mode == "files":
        for key, path in (("tls.certificate", settings.tls.certificate), ("tls.key", settings.tls.key)):
            if path is None:
                raise errors.Invalid(f"{key} is missing: tls.mode 'files' needs tls.certificate and tls.key")


def split_address(address: str, *, key: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``; port 0 lets the system choose. ``key`` is for the error."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s/]*)):([0-9]{1,5})", address)
    if match is None or int(match[3]) > 65_535:
        raise errors.Invalid(f"{key}: {address!r} must be host:port, with a port of at most 65535")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_environ(environ: Mapping[str, str], base: Path) -> dict[str, _Value]:
    by_name = {environment_name(key): key for key in keys()}
    found = {}
    for name, text in environ.items():
        if name in by_name:
            found[by_name[name]] = _Value(text, name, base, text=True)
        elif name.startswith(PREFIX) and name.removeprefix(PREFIX) not in RESERVED:
            raise errors.Invalid(f"{name} is not a setting{_suggest(name, by_name)}")
    return found


def _read_file(path: Path) -> dict[str, _Value]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise errors.Invalid(f"{path} is larger than {MAX_FILE_BYTES} bytes: that is no settings file")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.Invalid(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.Invalid(f"{path} is not TOML: {error}") from error
    base = path.resolve().parent
    found = {}
    known_sections = [key.partition(".")[0] for key in keys()]
    for section, content in document.items():
        if section not in known_sections:
            # A key without its section is the likelier mistake than a new section.
            hint = _suggest(section, known_sections) if isinstance(content, dict) else _suggest_tail(section)
            raise errors.Invalid(
                f"{section} in {path} is not a {'section' if isinstance(content, dict) else 'setting'}{hint}"
            )
        if not isinstance(content, dict):
            raise errors.Invalid(
                f"{section} in {path} must be a section: write [{section}] on a line of its own"
            )
        for name, value in content.items():
            key = f"{section}.{name}"
            if key not in keys():
                raise errors.Invalid(f"{key} in {path} is not a setting{_suggest(key, keys())}")
            found[key] = _Value(value, str(path), base)
    return found


def _suggest(name: str, known: Any) -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else "; 'edgegc settings show' lists them all"


def _suggest_tail(name: str) -> str:
    tails = {key.rpartition(".")[2]: key for key in keys()}
    nearest = get_close_matches(name, tails, n=1)
    return f"; did you mean {tails[nearest[0]]}?" if nearest else "; 'edgegc settings show' lists them all"


def _converted(key: str, found: _Value) -> Any:
    wanted = keys()[key]
    raw = found.value
    if found.text and isinstance(raw, str):
        if wanted == tuple[str, ...]:
            raw = [part.strip() for part in raw.split(",") if part.strip()]
        elif wanted is bool:
            raw = WORDS.get(raw.lower(), raw)
    if isinstance(raw, os.PathLike):
        raw = os.fspath(raw)
    try:
        value = msgspec.convert(raw, wanted, strict=not found.text, dec_hook=_to_path)
        if isinstance(value, float) and not math.isfinite(value):
            raise msgspec.ValidationError("Expected `float`")
    except msgspec.ValidationError as error:
        choices = get_args(wanted) if get_origin(wanted) is Literal else ()
        limit = f"expected one of {', '.join(choices)}" if choices else _in_words(str(error))
        raise errors.Invalid(f"{key} ({found.source}): {limit}, not {found.value!r}") from None
    if isinstance(value, Path):
        try:
            return found.base / value.expanduser()
        except RuntimeError:
            raise errors.Invalid(
                f"{key} ({found.source}): expected a path, not {found.value!r}: there is no such user's home"
            ) from None
    return value


def _to_path(wanted: type, raw: object) -> object:
    if wanted is Path and isinstance(raw, str) and raw and "\0" not in raw:
        return Path(raw)
    raise ValueError("expected a path")


def _in_words(message: str) -> str:
    """Return msgspec's message as this file's reader would say it."""
    for theirs, ours in (
        (r" - at `.*`", ""),
        (r", got `.*`", ""),
        (r"`int`", "a whole number"),
        (r"`float`", "a number"),
        (r"`bool`", "true or false"),
        (r"`array`", "a list"),
        (r"`str`", "text"),
    ):
        message = re.sub(theirs, ours, message)
    return message[:1].lower() + message[1:]
