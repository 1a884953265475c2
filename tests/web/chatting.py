"""The page in a browser, by the names that a reader sees or hears."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Error, Page


@dataclass
class Chat:
    """One open page, and what went wrong in it."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", self._error)
        self.draft = self.page.get_by_label("Message", exact=True)
        self.send = self.page.get_by_role("button", name="Send", exact=True)
        self.stop = self.page.get_by_role("button", name="Stop", exact=True)
        self.settings = self.page.get_by_role("button", name="Settings", exact=True)
        self.state = self.page.locator("#state")
        self.notice = self.page.locator("#notice")
        self.questions = self.page.locator("#turns > .user .text")
        self.answers = self.page.locator("#turns > .assistant .text")
        self.facts = self.page.locator("#turns > .assistant .facts")
        self.problem = self.page.locator("#turns").get_by_role("alert")
        self.code = self.page.get_by_label("The request as code")
        self.dialog = self.page.get_by_role("dialog")
        self.page.goto(self.url)

    def ask(self, text: str) -> None:
        """Type a message and send it with the keyboard."""
        self.draft.fill(text)
        self.draft.press("Enter")

    def show_key(self, key: str) -> None:
        """Enter a key in the dialog that is open."""
        self.dialog.get_by_label("Key", exact=True).fill(key)
        self.dialog.get_by_label("Key", exact=True).press("Enter")

    def _console(self, message: ConsoleMessage) -> None:
        # The browser notes every status of 400 and more; the page itself shows those that matter.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def _error(self, error: Error) -> None:
        self.faults.append(str(error))


def take(chat: Chat, name: str) -> None:
    """Keep a picture where BERTH_SCREENSHOTS says, for eyes."""
    if folder := os.environ.get("BERTH_SCREENSHOTS"):
        chat.page.screenshot(path=Path(folder) / f"{name}.png")
