"""The command line of ``python -m chainer_crossbn experiments``."""

import os

from chainer_crossbn.commands.command_line import (
    Parser,
    add,
    complain,
    conclude,
)
from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import (
    chosen_rules,
    costs,
    jobs,
    learning_rate_map,
    records,
    report,
    runner,
    scale_rules,
    scaling_runs,
    scripts,
    search,
)
from chainer_crossbn.experiments.definitions import (
    GROUPS,
    SCALES,
    beyond,
    every,
    experiments,
    optional,
)
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.runs.values import number

_PROGRAM = "chainer_crossbn experiments"


def main(argv=None):
    """Make the runs of the paper's evaluation, as far as they are missing.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0; 1 if a run has failed; 2 where the user asked for something
        that can't be done (said in one line on standard error); 130 or 143 after
        SIGINT or SIGTERM.
    """
    try:
        return conclude(_PROGRAM, lambda: _run(_parse(argv)))
    except runner.Stopped as stopped:
        complain(_PROGRAM, "stopped; the same command goes on")
        return 128 + stopped.signum
    except KeyboardInterrupt:  # while no run is being made
        return 130


def _parser():
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Make the runs of the paper's figures and tables; finished ones "
        "are left alone.",
    )
    add(
        parser,
        "--scale",
        choices=sorted(SCALES),
        default="laptop",
        help="how large everything is",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="CIFAR-10, as for train_cifar.py"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="directory that gathers the runs (default: result/paper-SCALE)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="these experiments alone, as --list names them",
    )
    parser.add_argument(
        "--seeds",
        type=number(int, 1),
        metavar="N",
        help="seeds of the figures of the paper (default: 3, at smoke scale 1)",
    )
    parser.add_argument(
        "--jobs",
        type=number(int, 1),
        metavar="N",
        help="runs at once, each with one thread, where times don't count (default: "
        "one per core)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help=f"the report (default: {report.NAME} in --out)",
    )
    parser.add_argument(
        "--quick-check",
        metavar="DIR",
        help=f"runs at {report.QUICK_CHECK} scale, which the report of a larger scale "
        "shows beside its own, and takes from them what that scale does not run",
    )
    _add_modes(parser.add_mutually_exclusive_group())
    return parser


def _add_modes(instead):
    """Add what can be done instead of making runs."""
    instead.add_argument(
        "--list", action="store_true", help="list experiments and what is left of them"
    )
    instead.add_argument(
        "--dry-run", action="store_true", help="print the commands that are left"
    )
    instead.add_argument(
        "--print-jobs",
        choices=scripts.SCHEDULERS,
        help="print a job script for each run that is left",
    )
    instead.add_argument(
        "--report-only",
        action="store_true",
        help="write the report of what is there, and run nothing",
    )


def _parse(argv):
    args = _parser().parse_args(argv)
    scale = SCALES[args.scale]
    args.out = args.out or os.path.join("result", f"paper-{scale.name}")
    args.seeds = args.seeds or scale.seeds
    if args.data is not None and scale.dataset == "synthetic":
        raise UsageError(f"--scale {scale.name} makes its own images; leave out --data")
    if args.data is not None and not os.path.exists(args.data):
        raise UsageError(f"--data: no file or directory {args.data}")
    if os.path.lexists(args.out) and not os.path.isdir(args.out):
        raise UsageError(f"--out: {args.out} is no directory")
    _check_quick_check(args.quick_check, scale)
    return args


def _check_quick_check(directory, scale):
    if directory is None:
        return
    if scale.rules_from != "map":
        others = [s.name for s in SCALES.values() if s.rules_from == "map"]
        raise UsageError(f"--quick-check goes with --scale {' or '.join(others)}")
    if not os.path.isdir(directory):
        raise UsageError(f"--quick-check: no directory {directory}")


def _run(args):
    scale = SCALES[args.scale]
    if args.list:
        _list(scale, args)
        return 0
    if args.report_only:
        _report(scale, args)
        return 0
    planned = _planned(scale, args)
    if args.dry_run or args.print_jobs:
        for job in planned:
            if records.state(job, args.out) == records.FINISHED:
                continue
            if args.dry_run:
                print(jobs.quoted(job.command(args.out, args.data)))
            else:
                print(scripts.script(job, args.out, args.data, args.print_jobs))
        return 0
    failed = runner.run(planned, args.out, args.data, _at_once(args), say=_say)
    if failed:
        names = ", ".join(job.name for job in failed)
        _say(f"{len(failed)} of {len(planned)} runs failed: {names}")
        if args.only != [learning_rate_map.NAME]:
            return 1
    if args.only == [learning_rate_map.NAME]:
        _choose(scale, args.out)
    elif args.only == [search.NAME]:
        _say(f"chosen: {search.conclude(scale, args.out)}")
    else:
        _report(scale, args)
    return 1 if failed else 0


def _report(scale, args):
    path = report.write(scale, args.out, args.report, args.quick_check)
    _say(f"wrote {path}")


def _choose(scale, out):
    """Choose two rules by the map, and say which, or what of it is missing."""
    try:
        outcome = chosen_rules.conclude(learning_rate_map.MapResults(scale, out))
    except NotRun as missing:
        _say(f"no rules chosen; not run: {missing}")
        return
    for line in chosen_rules.in_words(outcome):
        _say(line)


def _planned(scale, args):
    """Return the runs that the user asks for."""
    of_paper = [*(experiment.name for experiment in experiments(scale))]
    of_paper += [scaling_runs.NAME] if scale.scaling else []
    wanted = of_paper
    if args.only is not None:
        wanted = [n for name in args.only for n in GROUPS.get(name, (name,))]
    _check_names(wanted, scale)
    if wanted == [learning_rate_map.NAME]:
        return learning_rate_map.planned(scale)
    if search.NAME in wanted:
        if wanted != [search.NAME]:
            raise UsageError(f"--only {search.NAME} goes alone, and first")
        return search.planned(scale)
    chosen = [e for e in every(scale) if e.name in wanted]
    rules = scale_rules.of(scale, args.out).values()
    plan = jobs.planned(chosen, scale, rules, args.seeds)
    if len({dict(job.flags)["dataset"] for job in plan}) > 1:
        raise UsageError("--only: large goes alone, as its --data is another")
    return plan + (scaling_runs.planned(scale) if scaling_runs.NAME in wanted else [])


def _names(scale):
    """Return all that --only takes at a scale, but for groups."""
    names = [experiment.name for experiment in experiments(scale)]
    names += [scaling_runs.NAME] if scale.scaling else []
    names += [learning_rate_map.NAME] if scale.map else []
    names += [experiment.name for experiment in optional(scale) + beyond(scale)]
    return [*names, *([search.NAME] if scale.search else [])]


def _check_names(wanted, scale):
    known, elsewhere = _names(scale), _names(SCALES[report.QUICK_CHECK])
    for name in wanted:
        if name in known:
            continue
        if name in elsewhere:
            raise UsageError(
                f"--only: the {scale.name} scale has no {name}; run it at "
                f"{report.QUICK_CHECK} scale"
            )
        groups = [g for g, members in GROUPS.items() if {*members} <= {*known}]
        names = ", ".join([*known, *groups])
        raise UsageError(f"--only: no experiment {name!r}; there are {names}")


def _list(scale, args):
    rules = scale_rules.of(scale, args.out)
    several = len(rules) > 1
    told = [
        f"{name} rule: {rule}" if several else str(rule) for name, rule in rules.items()
    ]
    print(f"scale {scale.name}, {'; '.join(told)}")
    for name, title, plan in _plans(scale, rules.values(), args.seeds):
        left = [j for j in plan if records.state(j, args.out) != records.FINISHED]
        measured = _measured(plan, args.out)
        time = costs.in_words(costs.left(left, measured, _at_once(args)))
        print(
            f"{name:16} {len(left):3} of {len(plan):3} runs left, {time:>12}  {title}"
        )


def _plans(scale, rules, seeds):
    """Yield the name, the title and the runs of all that there is at a scale."""
    if scale.search:
        yield search.NAME, search.TITLE, search.planned(scale)
    for experiment in experiments(scale):
        plan = jobs.planned([experiment], scale, rules, seeds)
        yield experiment.name, experiment.title, plan
    timed = scaling_runs.planned(scale)
    if timed:
        yield scaling_runs.NAME, scaling_runs.TITLE, timed
    if scale.map:
        of_map = learning_rate_map.planned(scale)
        yield learning_rate_map.NAME, learning_rate_map.TITLE, of_map
    for experiment in optional(scale) + beyond(scale):
        plan = jobs.planned([experiment], scale, rules, seeds)
        what = "optional" if experiment in optional(scale) else "beyond the paper"
        yield experiment.name, f"{experiment.title} ({what})", plan
    whole = jobs.planned(experiments(scale), scale, rules, seeds) + timed
    yield "(paper)", "What is run unless told otherwise", whole


def _at_once(args):
    return args.jobs or len(os.sched_getaffinity(0))


def _measured(plan, out):
    runs = [(job, records.read(job, out)) for job in plan]
    return [(job, costs.START + run.total_time) for job, run in runs if run]


def _say(line):
    print(line, flush=True)
