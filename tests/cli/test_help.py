"""What the help says: every command, every option, an example."""

import pytest

import hwsearch
from hwsearch.cli import app
from tests.cli.commands import call

COMMANDS = ["init", "search", "resume", "front", "export", "verify", "report", "watch"]
COMMANDS += ["measure", "profile", "kit", "confirm", "worker", "elastify", "supernets", "import"]
COMMANDS += ["clean"]
GROUPS = ["devices"]


def named(command):
    return command.name or command.callback.__name__


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself_with_an_example(self, command):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert f"hwsearch {command}" in result.stdout.split("Example", 1)[1]
        (registered,) = (c for c in app.registered_commands if named(c) == command)
        assert registered.callback.__doc__.split(".")[0] in " ".join(result.stdout.split())

    def test_these_are_all_commands(self):
        assert [named(command) for command in app.registered_commands] == COMMANDS
        assert [group.name for group in app.registered_groups] == GROUPS

    def test_every_option_is_explained(self):
        for command in [*COMMANDS, *GROUPS]:
            for line in call(command, "--help").stdout.splitlines():
                words = line.strip("│ ").split()
                if words and words[0].startswith("--"):
                    assert any(word[0].isupper() or word.islower() for word in words[2:]), line

    def test_without_a_command_it_shows_the_help(self):
        result = call()
        assert result.exit_code == 2
        assert all(command in result.stdout for command in COMMANDS)

    def test_version(self):
        result = call("--version")
        assert (result.exit_code, result.stdout) == (0, f"{hwsearch.__version__}\n")
