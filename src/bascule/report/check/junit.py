"""JUnit's XML, which systems for continuous integration show."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

from bascule.core.text import printable
from bascule.report.check.checked import Checked
from bascule.report.words import flag_lines


def junit_xml(checked: Checked, *, when: datetime) -> str:
    """Each condition on each row as a test case, with what was found; flags as the suite's output.

    As the schemas of Ant and of Jenkins's xUnit plug-in have it. Characters that XML cannot hold are written out.

    Args:
        checked: What came of the conditions.
        when: They were checked.
    """
    failed = [result for result in checked.results if not result.holds]
    suites = ElementTree.Element("testsuites")
    suite = _inside(
        suites, "testsuite", id="0", package="bascule", name="bascule check", hostname="localhost", time="0",
        timestamp=when.isoformat(timespec="seconds")[:19], tests=str(len(checked.results)),
        failures=str(len(failed)), errors="0",
    )  # fmt: skip
    _inside(_inside(suite, "properties"), "property", name="checked", value=checked.of)
    for result in checked.results:
        name = f"{result.row}: {result.condition.text}"
        case = _inside(suite, "testcase", classname=f"bascule check {checked.of}", name=name, time="0")
        if not result.holds:
            kind = "no number" if result.problem else "condition"
            _inside(case, "failure", message=f"{name}: {result.found}", type=kind).text = printable(str(result))
    said = [*map(str, checked.results), *flag_lines(checked.flags.items())]
    _inside(suite, "system-out").text = "\n".join(map(printable, said))
    _inside(suite, "system-err")
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _inside(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {name: printable(value) for name, value in attributes.items()})
