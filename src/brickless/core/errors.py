"""The families of errors that the house raises on purpose; anything else is a bug of ours and shows its traceback.

A user's mistake is a `UserError`, hostile or corrupt bytes are a `HostileInputError`, the kernel's refusal stays an
`OSError`.
"""

from __future__ import annotations


class BricklessError(Exception):
    """What, where (`context`) and what to do next (`hint`), as one text for people."""

    def __init__(self, message: str, *, context: str = "", hint: str = "") -> None:
        """Keep the three parts apart, so that a command can lay them out and a machine can read them."""
        super().__init__(message)
        self.message = message
        self.context = context
        self.hint = hint

    def __str__(self) -> str:
        """Return the whole as sentences: `message (context). hint.`"""
        text = f"{self.message} ({self.context})" if self.context else self.message
        text = text if text.endswith((".", "!", "?")) else f"{text}."
        if self.hint:
            text = f"{text} {self.hint}"
            text = text if text.endswith((".", "!", "?")) else f"{text}."
        return text


class UserError(BricklessError):
    """A mistake of the one who called; `id` is a stable kebab-case name for scripts and for the documentation."""

    def __init__(self, id: str, message: str, *, context: str = "", hint: str = "") -> None:  # noqa: A002 an error's identity is called so everywhere
        """Name the mistake by `id` beside the text for people."""
        super().__init__(message, context=context, hint=hint)
        self.id = id


class HostileInputError(BricklessError):
    """Bytes from a network, an image, a device or a user that break a rule of their format."""


class JsonError(HostileInputError):
    """Bytes that are no JSON text, or one beyond the bounds that we read.

    `rule` is the kebab-case name of the broken rule, `where` the keys and indexes that lead to the fault, if any do.
    """

    def __init__(
        self, message: str, *, rule: str = "json-syntax", where: tuple[str | int, ...] = (), context: str = ""
    ) -> None:
        """Name the rule beside the text for people."""
        super().__init__(message, context=context)
        self.rule = rule
        self.where = where


class StateError(HostileInputError):
    """A state that breaks a rule of `spec/state.md`.

    `path` leads to the fault (`web/run.json: .storage.data.persistence`, empty for the document itself),
    `reason` says what is wrong there, `rule` is the kebab-case name of the rule (they are listed in `spec/state.md`).
    """

    def __init__(self, path: str, reason: str, *, rule: str = "state", hint: str = "") -> None:
        """Place the fault: where, what, and by which rule."""
        super().__init__(f"{path}: {reason}" if path else f"the state: {reason}", hint=hint)
        self.path = path
        self.reason = reason
        self.rule = rule
