"""The command line of ``python -m chainer_crossbn.experiments``."""

import os

from chainer_crossbn.command_line import (
    Parser,
    UsageError,
    add,
    complain,
    conclude,
    number,
)
from chainer_crossbn.experiments import (
    chosen_rules,
    costs,
    jobs,
    learning_rate_map,
    records,
    report,
    runner,
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

_PROGRAM = "chainer_crossbn.experiments"


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


def _parse(argv):
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
    instead = parser.add_mutually_exclusive_group()
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
    args = parser.parse_args(argv)
    scale = SCALES[args.scale]
    args.out = args.out or os.path.join("result", f"paper-{scale.name}")
    args.seeds = args.seeds or scale.seeds
    if args.data is not None and scale.dataset == "synthetic":
        raise UsageError(f"--scale {scale.name} makes its own images; leave out --data")
    if args.data is not None and not os.path.exists(args.data):
        raise UsageError(f"--data: no file or directory {args.data}")
    if os.path.lexists(args.out) and not os.path.isdir(args.out):
        raise UsageError(f"--out: {args.out} is no directory")
    return args


def _run(args):
    scale = SCALES[args.scale]
    if args.list:
        _list(scale, args)
        return 0
    if args.report_only:
        _say(f"wrote {report.write(scale, args.out, args.report)}")
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
        _say(f"wrote {report.write(scale, args.out, args.report)}")
    return 1 if failed else 0


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
    others = [e.name for e in optional(scale) + beyond(scale)]
    known = [*of_paper, scaling_runs.NAME, learning_rate_map.NAME, *others]
    wanted = [*of_paper, scaling_runs.NAME]
    if args.only is not None:
        wanted = [n for name in args.only for n in GROUPS.get(name, (name,))]
    if wanted == [learning_rate_map.NAME]:
        return learning_rate_map.planned(scale)
    if search.NAME in wanted:
        if wanted != [search.NAME]:
            raise UsageError(f"--only {search.NAME} goes alone, and first")
        return search.planned(scale)
    for name in wanted:
        if name not in known:
            names = ", ".join([*known, *GROUPS, search.NAME])
            raise UsageError(f"--only: no experiment {name!r}; there are {names}")
    chosen = [e for e in every(scale) if e.name in wanted]
    plan = jobs.planned(chosen, scale, search.chosen(args.out), args.seeds)
    if len({dict(job.flags)["dataset"] for job in plan}) > 1:
        raise UsageError("--only: large goes alone, as its --data is another")
    return plan + (scaling_runs.planned(scale) if scaling_runs.NAME in wanted else [])


def _list(scale, args):
    rule = search.chosen(args.out)
    print(f"scale {scale.name}, {rule}")
    plans = [(search.NAME, search.TITLE, search.planned(scale))]
    for experiment in experiments(scale):
        plan = jobs.planned([experiment], scale, rule, args.seeds)
        plans.append((experiment.name, experiment.title, plan))
    timed = scaling_runs.planned(scale)
    plans.append((scaling_runs.NAME, scaling_runs.TITLE, timed))
    of_map = learning_rate_map.planned(scale)
    plans.append((learning_rate_map.NAME, learning_rate_map.TITLE, of_map))
    for experiment in optional(scale) + beyond(scale):
        plan = jobs.planned([experiment], scale, rule, args.seeds)
        what = "optional" if experiment in optional(scale) else "beyond the paper"
        plans.append((experiment.name, f"{experiment.title} ({what})", plan))
    whole = jobs.planned(experiments(scale), scale, rule, args.seeds) + timed
    plans.append(("(paper)", "What is run unless told otherwise", whole))
    for name, title, plan in plans:
        left = [j for j in plan if records.state(j, args.out) != records.FINISHED]
        measured = _measured(plan, args.out)
        time = costs.in_words(costs.left(left, measured, _at_once(args)))
        print(
            f"{name:16} {len(left):3} of {len(plan):3} runs left, {time:>12}  {title}"
        )


def _at_once(args):
    return args.jobs or len(os.sched_getaffinity(0))


def _measured(plan, out):
    runs = [(job, records.read(job, out)) for job in plan]
    return [(job, costs.START + run.total_time) for job, run in runs if run]


def _say(line):
    print(line, flush=True)
