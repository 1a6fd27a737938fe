"""What the default suite runs of many cases alike."""

from types import SimpleNamespace

from sampling import crossed, mark_the_others_slow, sampled


def marked(nodeid, *marks):
    """What stands for a test: its name and its marks."""
    by_name = {mark.name: mark for mark in marks}

    def add_marker(mark):
        by_name[mark.name] = mark

    return SimpleNamespace(nodeid=nodeid, get_closest_marker=by_name.get, add_marker=add_marker, marks=by_name)


def test_each_value_of_a_short_axis_is_in_the_sample_and_nothing_is_lost():
    cases = crossed("abc", range(4), one_in=3, start=1)
    chosen = [case.values for case in cases if not case.marks]
    assert len(cases) == 12
    assert chosen == [("a", 1), ("b", 0), ("b", 3), ("c", 2)]


def test_all_cases_but_one_in_so_many_become_slow():
    items = [marked(f"a.py::test[{n}]", sampled(one_in=3).mark) for n in range(7)] + [marked("a.py::other")]
    mark_the_others_slow(items)
    assert [item.nodeid for item in items if "slow" not in item.marks] == [
        "a.py::test[0]",
        "a.py::test[3]",
        "a.py::test[6]",
        "a.py::other",
    ]
