"""From a typed function to its command line, and from the command line to the function's call.

jsonargparse does the parsing; here are the manner and the messages. Needs no torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from papercommons.errors import DataError, nearest, one_line


def parse_arguments(function: Callable[..., Any], prog: str, words: Sequence[str]) -> Any:
    """Return the options in `words`, by name; a mistake ends the program with one line and 2.

    Args:
        function: see `papercommons.cli.run_command`.
        prog: the program's name.
        words: what stands after the program's name.

    Raises:
        DataError: a file given as --config is missing or no YAML mapping.
        SystemExit: with 2 on any other mistake, with 0 after help.
    """
    words = _with_dashes(words)
    parser = build_parser(function, prog)
    configs = [_read_config(path) for path in _config_files(words)]
    options = parser.parse_args(words)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL and not options[name]:
            # argparse sets absent positional arguments to [], over those of a config
            given: Any = next((c[name] for c in reversed(configs) if c.get(name)), [])
            options[name] = [_text(v) for v in (given if isinstance(given, list) else [given])]
    return options


def call(function: Callable[..., Any], options: Any) -> Any:
    """Return what `function` gives for the options of `parse_arguments`.

    Args:
        function: see `papercommons.cli.run_command`.
        options: by name; those of a dataclass are put together again.
    """
    hints = typing.get_type_hints(function)
    keywords: dict[str, Any] = {}
    positional: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            fields = {field.name: options[field.name] for field in dataclasses.fields(hints[name])}
            keywords[name] = hints[name](**fields)
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional = options[name]
        else:
            keywords[name] = options[name]
    return function(*positional, **keywords)


def build_parser(function: Callable[..., Any], prog: str) -> Any:
    """Return the jsonargparse parser of `function`.

    Args:
        function: see `papercommons.cli.run_command`.
        prog: the program's name.

    Raises:
        TypeError: a parameter or a field has no description or no type.
    """
    from jsonargparse import set_parsing_settings

    set_parsing_settings(add_print_completion_argument=True)
    about, hints = _docstring(function), typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    needed = [
        f"{name.upper()} ..."
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL
        else f"{_flag(name)} {name.upper()}"
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    parser = _parser_class()(
        prog=prog,
        usage=" ".join(["%(prog)s", *needed, "[options]"]),
        description=about[""],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="YAML file of options; later ones win"
    )
    groups = []
    for name, parameter in parameters.items():
        if dataclasses.is_dataclass(hints.get(name)):
            groups.append(hints[name])
        else:
            _add(parser, name, hints.get(name), parameter, about.get(name))
    for options in groups:
        about, hints = _docstring(options), typing.get_type_hints(options)
        title = about[""].partition("\n")[0].rstrip(".").lower()
        group = parser.add_argument_group(title)
        parameters = inspect.signature(options).parameters
        for field in dataclasses.fields(options):
            parameter = parameters[field.name]
            if field.default_factory is not dataclasses.MISSING:
                parameter = parameter.replace(default=field.default_factory())
            _add(group, field.name, hints[field.name], parameter, about.get(field.name))
    group = parser.add_argument_group("what to print")
    group.add_argument("--json", action="store_true", help="print one JSON object, no table")
    group.add_argument("--quiet", action="store_true", help="no progress, no log lines")
    group.add_argument("--debug", action="store_true", help="show a traceback on errors")
    return parser


def _add(
    parser: Any, name: str, hint: Any, parameter: inspect.Parameter, description: str | None
) -> None:
    from jsonargparse import ActionYesNo

    if hint is None or not description:
        raise TypeError(f"{name} of this command needs a type and a line in the docstring")
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        kind = _text if hint is str else hint
        parser.add_argument(name, nargs="*", type=kind, help=description)
        return
    required = parameter.default is inspect.Parameter.empty
    default = None if required else parameter.default
    if required:
        description += " (required)"
    elif default is not None and default != {}:
        shown = ",".join(map(str, default)) if isinstance(default, list | tuple) else default
        shown = {True: "yes", False: "no"}[default] if isinstance(default, bool) else shown
        description += f" (default: {shown})"
    options = {"default": default, "help": description}
    if hint in (bool, bool | None):
        parser.add_argument(_flag(name), action=ActionYesNo(no_prefix="no-"), **options)
        return
    options |= {"required": required, "metavar": name.split("_")[-1].upper()}
    literal = next((a for a in (hint, *typing.get_args(hint)) if _is_literal(a)), None)
    if literal is not None:
        options["metavar"] = "{" + ",".join(map(str, typing.get_args(literal))) + "}"
    element = _list_element(hint)
    kind = _text if hint is str else _text_or_none if hint == str | None else _text_last(hint)
    parser.add_argument(_flag(name), type=_comma_separated(element) if element else kind, **options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal


def _text(value: Any) -> str | None:
    """Return text; a number in a YAML file (``devices: 2``) is as good as its digits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        raise TypeError(f"expected text, got {value}; put it in quotes")
    return str(value)


def _text_or_none(value: Any) -> str | None:
    return None if value == "null" else _text(value)


def _text_last(hint: Any) -> Any:
    """Return the type with str behind all others of a union: it would take whatever comes.

    Any becomes a union of plain types, for jsonargparse imports classes that an Any names.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return bool | int | float | list[bool | int | float | str] | str | None
    if origin in (typing.Union, types.UnionType):
        ordered = sorted(map(_text_last, parts), key=lambda part: part is str)
        return typing.Union[tuple(ordered)]  # noqa: UP007 (it is made of a tuple)
    return types.GenericAlias(dict, (parts[0], _text_last(parts[1]))) if origin is dict else hint


def _list_element(hint: Any) -> Any:
    """Return T for list[T] and list[T] | None, else None."""
    for one in (hint, *typing.get_args(hint)):
        if typing.get_origin(one) is list:
            return typing.get_args(one)[0]
    return None


def _comma_separated(element: Any) -> Callable[[Any], Any]:
    choices = typing.get_args(element) if _is_literal(element) else ()
    kind = f"of {', '.join(map(str, choices))}" if choices else element.__name__

    def convert(word: Any) -> Any:
        if isinstance(word, str):
            word = word.strip()
        if choices:
            return {str(choice): choice for choice in choices}[str(word)]
        whole = not isinstance(word, float) or word.is_integer()
        if word == "" or isinstance(word, bool | list | dict) or (element is int and not whole):
            raise ValueError
        return element(word)

    def parse(value: Any) -> Any:
        import yaml

        try:
            words = value
            if isinstance(value, str):
                words = yaml.safe_load(value) if value.startswith("[") else value.split(",")
            if value is None or words == [""]:
                return None if value is None else []
            return [convert(word) for word in (words if isinstance(words, list) else [words])]
        except (ValueError, TypeError, KeyError, yaml.YAMLError):
            raise ValueError(f"expected comma-separated {kind}, got {value!r}") from None

    parse.__name__ = f"comma-separated {kind}"
    return parse


def _docstring(thing: Any) -> dict[str, str]:
    """Return the descriptions of parameters by name, and the text above them under ``""``.

    A class has those of its bases too.
    """
    from docstring_parser import parse

    entries: dict[str, str] = {}
    for one in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else [thing]:
        parsed = parse(inspect.cleandoc(one.__doc__ or ""))
        above = [parsed.short_description or "", parsed.long_description or ""]
        entries[""] = "\n\n".join(part for part in above if part)
        for param in parsed.params:
            entries[param.arg_name.lstrip("*")] = " ".join((param.description or "").split())
    return entries


def _with_dashes(words: Sequence[str]) -> list[str]:
    """Let --batch_size stand for --batch-size, --trainer.max-steps for --trainer.max_steps.

    Names of jsonargparse's own (--print_config) keep its spelling; words after -- stay. A list that
    begins with a minus (--window -1000,400) is joined to its name, or argparse takes it for one.
    """
    end = words.index("--") if "--" in words else len(words)
    changed: list[str] = []
    for word in words[:end]:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            option, dot, key = name[2:].partition(".")
            name = f"--{option.replace('_', '-')}{dot}{key.replace('-', '_')}"
            name = re.sub("^--print-(config|completion)$", r"--print_\1", name)
        if re.match(r"-[\d.][^,]*,", word) and changed and changed[-1].startswith("--"):
            changed[-1] += f"={word}"
        else:
            changed.append(name + equals + value)
    return changed + list(words[end:])


def _config_files(words: Sequence[str]) -> Iterator[str]:
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--config" and following:
            yield following
        elif word.startswith("--config="):
            yield word.partition("=")[2]


def _read_config(path: str) -> dict[str, Any]:
    from papercommons.yaml_text import parse_yaml

    if not path or not Path(path).is_file():
        raise DataError(
            f"{path or '--config'}: no such file; --config takes a YAML file of options"
        )
    try:
        options = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; --config takes a YAML file") from None
    except ValueError as error:
        raise DataError(f"{path}: not readable YAML ({error})") from None
    if not isinstance(options, dict):
        raise DataError(f"{path}: holds no options; expected lines such as `lr: 0.1`")
    return options


def _parser_class() -> type:
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class HelpFormatter(DefaultHelpFormatter):
        """Shows descriptions as they are, and breaks no line within a name such as a-b."""

        def _expand_help(self, action: argparse.Action) -> str:
            return action.help or ""

        def _split_lines(self, text: str, width: int) -> list[str]:
            return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            paragraphs = (self._split_lines(part, width) for part in text.split("\n\n"))
            return "\n\n".join("\n".join(indent + line for line in part) for part in paragraphs)

    class Parser(ArgumentParser):
        """A parser whose errors are one line."""

        def __init__(self, **options: Any) -> None:
            super().__init__(formatter_class=HelpFormatter, **options)

        def error(self, message: str, ex: BaseException | None = None) -> NoReturn:
            known = [name for action in self._actions for name in action.option_strings]
            print(f"{self.prog}: error: {explain(message, known)}", file=sys.stderr)
            raise SystemExit(2)

        def format_help(self, *arguments: Any, **options: Any) -> str:
            text: str = super().format_help(*arguments, **options)
            return text.replace("--print_", "--print-")

    return Parser


def explain(message: str, known: Sequence[str]) -> str:
    """Return a message of jsonargparse or argparse on one line, in the words of the command line.

    Args:
        message: as they give it.
        known: the options there are.
    """
    if found := re.match(r"unrecognized arguments: (.*)", message):
        word = found[1].split()[0].partition("=")[0]
        if not word.startswith("-"):
            return one_line(f"unexpected {word!r} (--help lists all options)")
        return one_line(f"no option {word}{nearest(word, known)} (--help lists all)")
    if found := re.match(r"Option '([^']+)' is not accepted", message):
        names = [name.lstrip("-").replace("-", "_") for name in known]
        name = found[1].rpartition(".")[2] or found[1]
        return one_line(f"--config: no option {found[1]}{nearest(name, names)}")
    if found := re.match(r"the following arguments are required: (.*)", message):
        names = [_flag(name.strip()) for name in found[1].split(",")]
        return f"needs {', '.join(names)} (--help lists all options)"
    if found := re.match(
        r'(?:Parser key "([\w.]+)"|argument --([\w-]+)\S*):\s*(.*)', message, re.S
    ):
        return one_line(f"{_flag(found[1] or found[2])}: {_explain_value(found[3])}")
    return one_line(message.replace("--print_", "--print-"))


def _explain_value(message: str) -> str:
    given = re.search(r"(?:Given|Got) value: (.*)", message)
    wanted = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.(Literal\[.*?\]))", message)
    if given and wanted:
        kinds = [a or "one of " + b[len("Literal[") : -1].replace("'", "") for a, b in wanted]
        kinds = [kind for kind in dict.fromkeys(kinds) if kind != "NoneType"]
        return f"expected {' or '.join(kinds)}, got {given[1].strip()!r}"
    if message.startswith("expected one argument"):
        return "needs a value"
    if found := re.match(r"ignored explicit argument (.*)", message, re.DOTALL):
        return f"takes no value, got {found[1]}"
    if found := re.match(r"invalid (.+?) value: (.*)", message, re.DOTALL):
        return f"expected {found[1]}, got {found[2]}"
    return message
