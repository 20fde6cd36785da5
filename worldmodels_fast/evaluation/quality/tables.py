"""`quality.json` as sentences and tables; nothing here is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worldmodels_fast import envs
from worldmodels_fast.evaluation.quality.contents import Table, contents_of, environment_of
from worldmodels_fast.evaluation.quality.deaths import PERIOD
from worldmodels_fast.evaluation.quality.prediction import USED_NATS, horizons

SHOWN_TICS = (1, 2, 5, 10, 20, 30, 40, 60)

FEW_TICS = 300
"""Where all together have lived for less, a rate of deaths says nothing."""


def markdown(table: Table) -> str:
    """Lay a table out in Markdown, its columns aligned for the terminal."""
    head, rows = table
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, rows)])


def losses(result: dict[str, Any]) -> Table:
    """Return V's and M's losses on held-out episodes, beside the ends of the paper's logs."""
    spec = envs.ENVIRONMENTS.get(environment_of(result) or "")
    paper = spec.paper_losses if spec is not None else {}
    seeing = result["seeing"]
    rows = [
        ["V: squared error of a frame", f"{seeing['reconstruction']:.2f}", "reconstruction"],
        ["V: KL, nats", f"{seeing['kl']:.2f}", "kl"],
        ["M: z, nats per dimension", f"{result['z_loss']:.3f}", "z_loss"],
    ]
    if "deaths" in result:
        loss = result["deaths"]["weighted_loss"]
        rows.append(["M: end of an episode, weighted", f"{loss:.4f}", "weighted_loss"])
    if "rewards" in result:
        error = result["rewards"]["squared_error"]
        rows.append(["M: reward of a tic, squared error", f"{error:.3f}", "squared_error"])
    head = ["on held-out episodes", "here"]
    if not paper:
        return head, [row[:2] for row in rows]
    theirs = (f"{paper[row[2]]:g}" if row[2] in paper else "-" for row in rows)
    table = [[*row[:2], paper_loss] for row, paper_loss in zip(rows, theirs, strict=True)]
    return [*head, "the paper's log"], table


def about_losses(result: dict[str, Any]) -> str:
    """Why these losses are what they are, as far as the figures tell."""
    seeing = result["seeing"]
    used, dimensions = seeing["dimensions_used"], seeing["dimensions"]
    idle = dimensions - used
    explained = 1 - seeing["reconstruction"] / seeing["unconditional"]
    said = [
        f"V explains {explained:.0%} of the squared error that one picture for all frames has "
        f"({seeing['unconditional']:.1f}).",
        f"It tells {seeing['kl']:.1f} nats of a frame with {used} of its {dimensions} dimensions; "
        f"the other {idle} tell less than {USED_NATS:g} nats each.",
    ]
    if idle and result["latent"] == "sample":
        noise = 1.4189385332046727  # nats of a standard normal
        rest = (result["z_loss"] * dimensions - idle * noise) / max(1, used)
        said.append(
            f"Nobody can foresee noise: those {idle} cost M {noise:.2f} nats each, which leaves "
            f"{rest:.2f} for each of the {used} that tell something. So M's z loss measures V's "
            "thrift before it measures M, and cannot be compared between different V."
        )
    if "deaths" in result:
        d = result["deaths"]
        base = d["judged"]["constant"]["log_loss"]
        own = d["judged"]["weight undone"]["log_loss"]
        said.append(
            f"The loss of ends counts each of the {d['deaths']} deaths in {d['tics']:,} tics "
            f"{d['done_weight']:g} times; unweighted it is {own:.4f} nats per tic, where a "
            f"constant chance has {base:.4f}."
        )
    if "rewards" in result:
        r = result["rewards"]
        limited = "" if r["limit"] is None else f", limited to +- {r['limit']:g}"
        said.append(
            f"The rewards{limited} have a variance of {r['variance']:.3f}; their mean is "
            f"{r['mean']:.3f} a tic, M's guesses' {r['predicted_mean']:.3f}."
        )
        if r["correlation"] is not None:
            said.append(
                f"Summed over {r['window']} tics ({r['windows']} times), guesses and rewards "
                f"correlate at {r['correlation']:.2f}."
            )
    return " ".join(said)


def predictions(result: dict[str, Any]) -> Table:
    """Errors of dreams of so many tics, in latents."""
    errors = result["prediction"]["latent"]
    shown = [k for k in SHOWN_TICS if k <= len(errors["copy"])]
    rows = [[name, *(f"{errors[name][k - 1]:.2f}" for k in shown)] for name in errors]
    return ["error / variance after", *(f"{k} tic{'s' * (k > 1)}" for k in shown)], rows


def pixel_predictions(result: dict[str, Any]) -> Table:
    """The same in pixels."""
    prediction = result["prediction"]
    rows = [[name, *(f"{e:.1f}" for e in each)] for name, each in prediction["pixel"].items()]
    tics = prediction["pixel_tics"]
    return ["squared error of a frame after", *(f"{k} tic{'s' * (k > 1)}" for k in tics)], rows


def about_predictions(result: dict[str, Any]) -> str:
    """Return sentences on how many tics M's predictions reach."""
    prediction = result["prediction"]
    first, foreseen = horizons(prediction["latent"])
    last = len(prediction["tics"])
    copying = (
        f"closer than the last frame from tic {first} on"
        if first is not None
        else f"not closer than the last frame at tic {last}"
    )
    seen = f"up to tic {foreseen}" if foreseen < last else f"to the last tic looked at, {last}"
    return (
        f"{prediction['windows']} places in held-out episodes, the real actions, temperature "
        f"{prediction['temperature']:g}. The mean of {prediction['samples']} dreams is {copying}, "
        f"and better than the mean of all frames by a tenth or more {seen}. A single dream has "
        "its own noise on top: one that is right in distribution, but knows nothing, would come "
        "to 2. Mean path: each mixture's mean is fed back instead of a sample."
    )


def head(result: dict[str, Any]) -> Table:
    """Chances of dying, judged on held-out episodes."""
    d = result["deaths"]
    first = d["judged"]["constant"]["over_time"]
    rows = [
        [
            name,
            f"{j['expected_deaths']:.0f} +- {j['expected_deaths_std']:.0f}",
            f"{j['brier']:.5f}",
            f"{j['log_loss']:.5f}",
            ", ".join(f"{row[3]:.0f}" for row in j["over_time"]),
        ]
        for name, j in d["judged"].items()
    ]
    return [
        "chance of dying",
        f"deaths expected (were {d['deaths']})",
        "Brier",
        "log loss",
        f"by {PERIOD} tics of game time (were {', '.join(str(row[2]) for row in first)})",
    ], rows


def alarm_rates(result: dict[str, Any]) -> Table:
    """Precision / recall for each threshold and tolerance, and episodes stopped early."""
    alarms = result["deaths"]["alarms"]
    tolerances = sorted({row["tolerance"] for row in alarms})
    rows = []
    for threshold in sorted({row["threshold"] for row in alarms}):
        mine = {r["tolerance"]: r for r in alarms if r["threshold"] == threshold}
        rows.append(
            [
                f"{threshold:g}",
                str(mine[tolerances[0]]["alarms"]),
                *(f"{mine[t]['precision']:.2f} / {mine[t]['recall']:.2f}" for t in tolerances),
                f"{mine[tolerances[-1]]['stopped early']:.0%}",
            ]
        )
    return [
        "logit above",
        "alarms",
        *(f"precision / recall, {t} tics" for t in tolerances),
        f"episodes stopped more than {tolerances[-1]} tics early",
    ], rows


def about_head(result: dict[str, Any]) -> str:
    """Return sentences on the weight of ends and the paper's rule."""
    d = result["deaths"]
    rise = d["rise"]
    said = (
        f"Training counts a death {d['done_weight']:g} times, which lifts the logit by log "
        f"{d['done_weight']:g}: a dream that ends above {d['threshold']:g} ends where M's own "
        f"chance of dying in this tic is above {d['ends_above']:.1%}. Held-out episodes that ended "
        f"at their first alarm would last {d['mean_length_to_first_alarm']:.0f} tics instead of "
        f"{d['mean_length']:.0f}, and {d['never_alarmed']:.0%} of them have no alarm at all."
    )
    if rise["before"]:
        said += (
            f" In the median of {rise['deaths']} deaths the logit is out of the usual (above "
            f"{rise['usual']:.1f}) for the last {rise['notice']} tics, and "
            f"{rise['before'][0][1]:.1f} in the last."
        )
    return said


def survivals(rows: Sequence[dict[str, Any]]) -> Table:
    """Medians, log-rank tests and hazards of `survival`."""

    def median(group: dict[str, Any]) -> str:
        return "-" if group["median"] is None else f"{group['median']:.0f}"

    def rates(group: dict[str, Any]) -> str:
        return " ".join(
            "-" if lived < FEW_TICS else f"{100 * deaths / lived:.2f}"
            for _, deaths, lived in group["hazard"][:6]
        )

    table = [
        [
            row["player"],
            f"{median(row['game'])} / {median(row['dream'])}",
            "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
            rates(row["game"]),
            rates(row["dream"]),
        ]
        for row in rows
    ]
    return [
        "player",
        "median tics, game / dream",
        "log-rank p",
        "deaths in 100 tics lived, game: tic 0, 100, ...",
        "dream",
    ], table


def summary(result: dict[str, Any]) -> str:
    """All of it for the terminal."""
    parts = [markdown(losses(result)), about_losses(result)]
    if "prediction" in result:
        parts += [markdown(predictions(result)), about_predictions(result)]
    if "deaths" in result:
        parts += [markdown(head(result)), markdown(alarm_rates(result)), about_head(result)]
    if found := contents_of(result):
        module, contents = found
        parts += map(markdown, module.tables(contents))
    return "\n\n".join(parts)


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The figures that the stage's record keeps."""
    figures = {
        "reconstruction": result["seeing"]["reconstruction"],
        "kl": result["seeing"]["kl"],
        "z_loss": result["z_loss"],
    }
    if "prediction" in result:
        figures["foreseen_tics"] = float(horizons(result["prediction"]["latent"])[1])
    if "deaths" in result:
        d = result["deaths"]
        figures["deaths"] = float(d["deaths"])
        figures["expected_deaths"] = d["judged"]["weight undone"]["expected_deaths"]
    return figures
