"""The command line's grammar (pvr.md 1.1) on top of click: one or two dashes, flags anywhere, `--flag=false`.

Commands are loaded when they are called: `pvr --version` and `pvr --help` import none of them.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import click

from brickless.core.errors import BricklessError
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError, Failed, ReaderGone, exit_code

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_SETTINGS: dict[str, Any] = {"help_option_names": ["--help", "-h"], "max_content_width": 100}
UNKNOWN_COMMAND = 3


class Entry(NamedTuple):
    """One row of a registry: where the command lives, its other names, and one line about it."""

    module: str
    aliases: tuple[str, ...]
    summary: str
    hidden: bool = False


class CommaList(click.ParamType[str]):
    """Text whose environment variable is split at commas; on the command line the flag is repeated instead."""

    name = "text"
    envvar_list_splitter = ","

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split as the field's client does (pvr.md 1.1)."""
        return rv.split(",")


def normalise(args: list[str], params: Sequence[click.Parameter], *, stop_at_positional: bool) -> list[str]:
    """Rewrite arguments into what click understands: two dashes, values as words of their own, no `--flag=true`."""
    options = {
        opt.lstrip("-"): (param, next((o for o in param.opts if o.startswith("--")), opt))
        for param in params
        if isinstance(param, click.Option)
        for opt in param.opts
    }
    done: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*done, word, *rest]
        if not word.startswith("-") or word == "-":
            if stop_at_positional:
                return [*done, word, *rest]
            done.append(word)
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name not in options:
            done.append(word)
            continue
        param, canonical = options[name]
        if not param.is_flag and not param.count:
            done += [canonical, value] if equals else [canonical, *rest[:1]]
            rest = rest if equals else rest[1:]
        elif not equals or value in _TRUE:
            done.append(canonical)
        elif value not in _FALSE:
            raise click.UsageError(f'invalid boolean value "{value}" for -{name}')
    return done


class Command(click.Command):
    """A command: its example, its exit codes by error id, the code of any other failure, and `--json`."""

    def __init__(
        self,
        *args: Any,
        example: str = "",
        codes: Mapping[str, int] | None = None,
        failure: int = 3,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("context_settings", _SETTINGS)
        kwargs["epilog"] = f"\b\nExample:\n  {example}"
        super().__init__(*args, **kwargs)
        self.codes = codes or {}
        self.failure = failure
        self.params.append(
            click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="One JSON document.")
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept the grammar of pvr.md 1.1."""
        return super().parse_args(ctx, normalise(args, self.get_params(ctx), stop_at_positional=False))

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and give an expected error the exit code that this command documents for it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would turn it into exit 1 on its own; main decides.
            raise ReaderGone from error
        except (BricklessError, OSError) as error:
            raise Failed(error, exit_code(error, self.codes, self.failure)) from error


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Env).json = True


class Group(click.Group):
    """Commands by name from a table; a command's module is imported when it is called."""

    def __init__(
        self,
        *args: Any,
        registry: Mapping[str, Entry],
        example: str,
        moved: Mapping[str, Entry] = MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        """`moved` are commands under the names of old; their summary says how they are called today."""
        kwargs.setdefault("context_settings", _SETTINGS)
        kwargs.setdefault("no_args_is_help", True)
        kwargs["epilog"] = f"\b\nExample:\n  {example}"
        super().__init__(*args, **kwargs)
        self.registry = registry
        self.moved = moved
        self.names = {alias: name for name, entry in registry.items() for alias in (name, *entry.aliases)}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Global flags count only before the command word (pvr.md 1.1)."""
        return super().parse_args(ctx, normalise(args, self.get_params(ctx), stop_at_positional=True))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        """The names, without aliases, in the order of the table."""
        return list(self.registry)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 click's signature
        """Import the command behind a name or an alias."""
        name = self.names.get(cmd_name)
        entry = self.registry[name] if name is not None else self.moved.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        command = self.get_command(ctx, args[0])
        if command is None:
            near = difflib.get_close_matches(args[0], list(self.names), n=1)
            hint = f"Did you mean `{near[0]}`?" if near else "`pvr --help` lists the commands."
            error = CommandError(UNKNOWN_COMMAND, f"No help topic for '{args[0]}'", hint=hint)
            raise Failed(error, UNKNOWN_COMMAND)
        if args[0] in self.moved and not ctx.params.get("quiet"):
            ctx.ensure_object(Env).say(f"`{args[0]}` is deprecated; it is called `{self.moved[args[0]].summary}`.")
        return command.name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 click's signature
        """List the commands from the table, without importing any."""
        rows = [
            (", ".join((name, *entry.aliases)), entry.summary)
            for name, entry in self.registry.items()
            if not entry.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(
    name: str, *, example: str, codes: Mapping[str, int] | None = None, failure: int = 3
) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function whose first argument is the Env; its docstring is the help text."""

    def decorate(function: Callable[..., Any]) -> Command:
        made = click.command(name, cls=Command, example=example, codes=codes, failure=failure)(click.pass_obj(function))
        assert isinstance(made, Command)  # noqa: S101 - what `cls` says
        return made

    return decorate


def option(*names: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A click option whose environment variable is shown in the help."""
    if "envvar" in kwargs:
        kwargs.setdefault("show_envvar", True)
    if kwargs.get("multiple"):
        kwargs.setdefault("type", CommaList())
    return click.option(*names, **kwargs)


argument = click.argument
