"""Which metrics share a table, and how it is laid out."""

from __future__ import annotations

from dataclasses import replace

from contrex.records import MetricFamily, Samples
from contrex.records.version1 import completed
from contrex.report.families import families, shortened, singles
from contrex.report.groups import grouped
from contrex.report.tables import Column, comparison

MEASURES = {"drop": ("percent", "magnitude"), "increase": ("percent", "magnitude")}


def table_of(make_run, *metrics: tuple[str, str, str]):
    """A comparison of metrics given as (name, title, family), as records of version 1 had them; that the protocols
    say the same of theirs is in evaluation/test_protocols.py."""
    run = make_run()
    plain = [{"name": name, "title": title, "family": family, "value": None} for name, title, family in metrics]
    described = completed({"metrics": plain}, Samples())["metrics"]
    made = [
        replace(run.record.metrics[0], name=one["name"], title=one["title"], family=MetricFamily(**one["family"]))
        for one in described
    ]
    return comparison(grouped([replace(run, record=replace(run.record, metrics=made))]))


def drop_increase(*shares: int) -> list[tuple[str, str, str]]:
    return [
        (f"{sign}_{measure}_{share}", f"{sign.capitalize()} {measure}, {share} % kept", "drop_increase")
        for share in shares
        for sign, measures in MEASURES.items()
        for measure in measures
    ]


def test_a_metric_alone_in_its_family_is_in_the_main_table(make_run) -> None:
    several = [(f"fgsm_{size}", f"Top-1 accuracy under FGSM, epsilon {size}/255", "fgsm") for size in (1, 2)]
    table = table_of(make_run, ("top1", "Top-1", "top1"), *several, ("old", "From an older record", ""))
    (main,) = singles(table).across.values()
    assert [column.name for column in main.columns] == ["top1", "old"]
    (family,) = families(table)
    assert family.title == "Accuracy under attack (FGSM)"
    assert [column.title for column in family.across[""].columns] == ["Epsilon 1/255", "Epsilon 2/255"]


def test_drop_and_increase_is_a_table_per_share_as_in_the_paper(make_run) -> None:
    (family,) = families(table_of(make_run, *drop_increase(15, 30, 45)))
    assert list(family.across) == ["15 % kept", "30 % kept", "45 % kept"]
    titles = [column.title for column in family.across["30 % kept"].columns]
    assert titles == ["Drop percent", "Drop magnitude", "Increase percent", "Increase magnitude"]
    assert family.across["30 % kept"].columns[0].name == "drop_percent_30"
    assert not family.down


def test_relative_probability_has_baseline_and_class_as_rows(make_run) -> None:
    names = ["relative_probability_t1", "relative_probability_t2"]
    names += [
        f"relative_probability_{sign}_{baseline}_{target}"
        for sign in ("positive", "negative")
        for baseline in ("blur", "zero")
        for target in ("t1", "t2")
    ]
    (family,) = families(table_of(make_run, *[(name, name, "relative_probability") for name in names]))
    assert not family.across
    assert [section.title for section in family.down] == [
        "Whole image", "Positive features kept", "Negative features kept",
    ]  # fmt: skip
    titles = [column.title for column in family.down[2].columns]
    assert titles == ["rest blurred, t1", "rest blurred, t2", "rest zero, t1", "rest zero, t2"]
    assert [column.name for column in family.columns] == names


def test_gradient_signs_put_the_explanations_under_each_other(make_run) -> None:
    names = [
        f"gradient_sign_{explanation}_{quantity}_0_003"
        for explanation in ("original", "weighted")
        for quantity in ("accuracy", "logit", "probability")
    ]
    crowded = [*names, "gradient_sign_mean_logit_0_003", "gradient_sign_max_logit_0_003"]
    (family,) = families(table_of(make_run, *[(name, name, "gradient_sign") for name in crowded]))
    sections = {section.title: [column.title for column in section.columns] for section in family.down}
    assert sections == {
        "Change of accuracy, epsilon 0.003": ["original", "weighted"],
        "Change of logit, epsilon 0.003": ["original", "weighted", "mean", "max"],
        "Change of probability, epsilon 0.003": ["original", "weighted"],
    }


def test_many_metrics_without_a_known_layout_are_rows(make_run) -> None:
    many = [(f"mine_{i}", f"Mine {i}", "mine") for i in range(8)]
    (family,) = families(table_of(make_run, *many))
    assert [len(section.columns) for section in family.down] == [8]
    alone = singles(table_of(make_run, *[(name, title, "") for name, title, _ in many]))
    assert [len(section.columns) for section in alone.down] == [8]
    assert singles(table_of(make_run, *many)).across == {}


def test_titles_lose_only_what_they_share() -> None:
    def titles(*texts: str) -> list[str]:
        return [column.title for column in shortened([Column(text, text, "", True) for text in texts])]

    assert titles("Error, 80 % crop", "Error, flip") == ["80 % crop", "Flip"]
    assert titles("Error, 80 % crop", "Error") == ["Error, 80 % crop", "Error"]
    assert titles("Error, 80 % crop", "Gain, flip") == ["Error, 80 % crop", "Gain, flip"]
