"""What a report of probes says about latents, by a fixed rule, and the correction of its tests."""

from __future__ import annotations

from .statistics import ALPHA, LEAST_N, holm

VERDICT_PROBES = ("noise", "mean", "foreign", "removed")  # whose losses decide the verdict
FOLLOW_TESTS = ("follow_difference", "follow_beyond_idle")  # what a foreign sketch adds to chance, and to an idle one


def correct_p_values(report: dict) -> None:
    """Add ``holm_p`` to each test of a report: losses (``mcnemar_p``), and rates of following a foreign sketch (``p``).

    The tests of the verdict are corrected as a family of their own, because they are named before anything is seen. The
    other probes explain it. Corrected with them, the same latents would have another verdict in a longer report.
    """
    losses = {name: (part, part["mcnemar_p"]) for name, part in report.items() if "mcnemar_p" in part}
    decisive = [losses.pop(name) for name in VERDICT_PROBES if name in losses]
    decisive += [(part, part["p"]) for name in FOLLOW_TESTS if (part := report.get("foreign", {}).get(name))]
    for tests in filter(None, (decisive, list(losses.values()))):
        for (part, _), p in zip(tests, holm([p for _, p in tests]), strict=True):
            part["holm_p"] = round(float(p), 5)


def verdict(report: dict) -> str:
    """The conclusion from a report, by a fixed rule. "More" and "less" mean significant after Holm's correction.

    The latents carry content if noise, mean and foreign latents all reduce accuracy, and if a foreign sketch is followed
    more often than by chance and more often than after uninformative latents. Only the markers matter if sketching
    matters, content does not, and the markers alone keep 0.8 of the gain.
    """
    required = ("noise", "mean", "foreign")
    if not all("difference" in report.get(name, {}) for name in (*required, "markers", "removed")):
        return "The verdict needs probes that were not run."
    if (n := report["as_generated"]["n"]) < LEAST_N:
        return f"No verdict: {n} items were probed and {LEAST_N} are needed, {LEAST_N - n} more."
    if all(is_lost(report[name]) for name in required):
        return content_verdict(report["foreign"])
    gain = report["removed"]["difference"]["value"]
    share_kept = gain and 1 - report["markers"]["difference"]["value"] / gain
    if is_lost(report["removed"]) and share_kept >= 0.8:
        return f"Only the markers matter: they alone keep {share_kept:.0%} of the gain from sketching."
    return "No evidence that the latents matter."


def is_lost(part: dict) -> bool:
    """Whether a probe reduces accuracy."""
    return part["difference"]["value"] > 0 and part["holm_p"] < ALPHA


def content_verdict(foreign: dict) -> str:
    """The conclusion where each kind of replaced latents reduces accuracy."""
    if (n := foreign["follow_n"]) < LEAST_N:
        return (
            f"Replaced latents reduce accuracy. What they contain is not judged: {n} items had the latents of another "
            f"item and {LEAST_N} are needed, {LEAST_N - n} more."
        )
    if all(foreign[name]["value"] > 0 and foreign[name]["holm_p"] < ALPHA for name in FOLLOW_TESTS):
        return (
            "The latents carry content: noise, mean and foreign latents each reduce accuracy, and the answer follows "
            "a foreign sketch more often than by chance."
        )
    return "Replaced latents reduce accuracy, but a foreign sketch is not followed. It is not shown what the latents contain."
