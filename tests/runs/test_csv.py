"""Tables for a spreadsheet: opened as UTF-8, and no cell computed."""

from reslab.runs.files import to_csv


def test_a_table_has_its_rows_and_no_formula() -> None:
    content = to_csv(["file", "label"], [["a,b.png", "=1+1"], ["ж.png", "-3"], ["c.png", -3.5]])
    assert content.decode("utf-8") == "\ufefffile,label\r\n\"a,b.png\",'=1+1\r\nж.png,'-3\r\nc.png,-3.5\r\n"
