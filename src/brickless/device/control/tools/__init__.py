"""The command-line tools for the control socket."""
