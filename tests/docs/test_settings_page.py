"""docs/settings.md says what the launcher does."""

from engine import write_docs


def test_the_page_is_fresh() -> None:
    assert write_docs.PAGE.read_text(encoding="utf-8") == write_docs.page(), "run: python -m engine.write_docs"
