from types import SimpleNamespace

from results import on_page_markdown, shown, table


def test_rows_become_a_table_with_spread_and_source():
    rows = [
        {"method": "ce", "accuracy": 0.5, "std": 0.01, "p": None, "per seed": [0.4, 0.6]},
        {"method": "rld", "accuracy": 0.75, "std": None, "p": 0.00002},
    ]
    text = table({"rows": rows, "hardware": "a machine", "command": "nox -s reproduce"})
    assert "| ce | 0.5000 ±\N{NO-BREAK SPACE}0.0100 | – |" in text
    assert "| rld | 0.7500 | 2.0e-05 |" in text
    assert "per seed" not in text
    assert text.endswith("hardware: a machine. Made by `nox -s reproduce`.")


def test_an_interval_is_one_column():
    rows = [
        {"first": "a", "95 % low": -0.5, "95 % high": 0.25, "low": 1},
        {"first": "b", "95 % low": None, "95 % high": None, "low": 2},
    ]
    text = table({"rows": [], "compared": rows}, "compared")
    assert text.splitlines()[0] == "| first | 95 % | low |"
    assert text.splitlines()[2:] == [
        "| a | -0.5000 to\N{NO-BREAK SPACE}0.2500 | 1 |",
        "| b | – | 2 |",
    ]


def test_large_whole_numbers_have_separators():
    assert shown(1234567) == "1,234,567"


def test_marks_without_a_file_say_so(tmp_path):
    config = SimpleNamespace(docs_dir=str(tmp_path))
    got = on_page_markdown("a\n\n<!-- results: none -->\n", None, config, None)
    assert got == "a\n\nNot measured yet.\n"


def test_a_mark_with_a_key_takes_that_list_without_the_source(tmp_path):
    (tmp_path / "results").mkdir()
    maps = '[{"map": "a", "iou": 0.5, "iou std": 0.25}, {"map": "b"}]'
    text = f'{{"rows": [], "maps": {maps}, "hardware": "a machine"}}'
    (tmp_path / "results" / "x.json").write_text(text)
    config = SimpleNamespace(docs_dir=str(tmp_path))
    got = on_page_markdown("<!-- results: x maps -->\n", None, config, None)
    assert got == "| map | iou |\n|---|---|\n| a | 0.5000 ±\N{NO-BREAK SPACE}0.2500 |\n| b | – |\n"
