"""How the command line says no: one sentence, a hint that names the fix, an exit code."""

from collections.abc import Sequence

from engine.messages import Exit, Problem

__all__ = ["BerthError", "Exit", "Problem"]


class BerthError(Exception):
    """One or more problems that end a command; the first one's exit code is the command's."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("; ".join(problem.sentence for problem in self.problems))

    @property
    def exit_code(self) -> int:
        """The exit code of the first problem."""
        return int(self.problems[0].exit_code)


def failed(sentence: str, hint: str, exit_code: Exit = Exit.FAILED) -> BerthError:
    """The error for a single problem."""
    return BerthError(Problem(sentence, hint, exit_code))
