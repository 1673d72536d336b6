import html

from fastllm.demo.page import _greyed_out


def test_nothing_of_a_title_or_a_reason_is_read_as_markup_or_as_a_template() -> None:
    shown = _greyed_out({"<b>x": "{{y}} ${z} `w`", "other": "{{y}} ${z} `w`"})
    assert shown.count('type="checkbox" disabled') == 2
    assert shown.count("Not offered") == 1
    assert not set("{}$`") & set(shown)
    assert "<b>" not in shown
    assert "{{y}} ${z} `w`" in html.unescape(shown)
