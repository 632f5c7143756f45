"""The words of docs/results.md and of agents/pretrained/README.md, for benchmarks/results.py."""

from __future__ import annotations

PAGE = """# Results

What PPO learned on `{env_id}`, from {seeds} training seeds: {steps:,} steps each on streams of the split `train`, the
best checkpoint of each on {validation} validation streams, and everything below on the frozen test streams of the
[leaderboard](leaderboard.md). {machine}.
{minutes}. The policies are in
[`agents/pretrained`](../agents/pretrained/README.md), raw scores (a row per training seed, a column per stream, for
`ScoreMatrix.load`) in [`results/`](results/{env_id}). Intervals are 95 % percentile bootstraps over training runs
and streams.

## Against hand-written schedulers

{pairs}
P(better) is the probability of improvement: how often a training run beats the other on a stream drawn at random.
It was to be {goal}. The numbers of `{best}` are those that [a sweep on training streams](environments/tuning.md) found.

{runs}
## Against the planner

The planner, `{planner}`,
tries actions on branches of the real episode and so sees its future, for minutes per stream. Its numbers are those that
[a sweep on training streams](environments/tuning-planner.md) found. It has played the first {few} test streams.
Normalised scores are 0 for never sleeping and 1 for the planner.

{summary}
{above}
PPO closes {closed:.0%} of the gap between `{best}` and the planner on these streams. More than 100 % is possible: the
planner tries single actions and has the rule go on after each, so that it does not find what takes several
decisions. These are few streams, and a share of a small gap is unsure.

![Performance profiles](results/profiles.png)

![Scores on all test streams, and what is gained over the best rule](results/intervals.png)

### Why the probability of improvement is below {goal}

There is little to gain, and single streams are chaotic: a night moved by a tick changes which facts every later night
meets. On one stream, the scores of two training runs of PPO differ by {between:.3f} (standard deviation over streams,
mean over pairs of runs), those of a run and of `{best}` by {beyond:.3f}. Were such differences normally distributed, a
probability of {goal} would take a mean gain of {needed:.3f}. The planner, which sees the future, gains {room:.3f} on
its streams and is better on {room_probability:.2f} of them.

## Untouched on other cards

The policy that scored best on validation streams, trained on `{env_id}` alone, beside the same rule with the same
numbers. On Gemma the ledger is smaller than in training, and padded.

{transfer}
## How they learned

![Return beyond the imitated rule by training step](results/learning.png)

Mean over {seeds} runs and the range of them: what episodes earned beyond the rule that had played the same stream,
while exploring. Means of the four quarters of training: {quarters}. Scores of the deterministic policy on
the validation streams, in between: {curve}.

## What they learned

![Probability of SLEEP by time since nightfall, degraded facts and load](results/habits.png)

Mean probability of SLEEP on {watched} validation streams, all policies, where sleeping was allowed; the black bar is
the shortest night, and white was never met. {habits}
So they sleep as the night falls, or not at all that night.

## Repeat

```sh
{commands}```
"""

COMMANDS = """make install && . .venv/bin/activate
for seed in 1 2 3 4 5; do
    python agents/ppo.py --seed $seed --out runs/result/ppo-$seed
    cp runs/result/ppo-$seed/best.zip agents/pretrained/ppo-$seed.zip
    cp runs/result/ppo-$seed/best.json agents/pretrained/ppo-$seed.json
done
policies=$(for seed in 1 2 3 4 5; do echo maskable-ppo:agents/pretrained/ppo-$seed.zip; done)
sleepgym leaderboard night-owl pressure-rule fixed-period never-sleep $policies \\
    --processes 2 --out runs/leaderboard/SleepLLM-v0
sleepgym leaderboard look-ahead:depth=16,width=4,every=2,rule=night-owl:load_at=0.12 \\
    --streams 32 --slots 1 --processes 2 --validate 0 --out runs/leaderboard/planner
for env in Night Tight Churn Gemma; do
    sleepgym leaderboard night-owl maskable-ppo:agents/pretrained/ppo-3.zip --streams 10 --slots 1 --processes 2 \\
        --env-id SleepLLM-$env-v0 --out runs/leaderboard/SleepLLM-$env-v0
done
python benchmarks/results.py
"""


POLICIES = """# Trained policies

MaskablePPO on `{env_id}`, one per training seed, for `sleepgym leaderboard maskable-ppo:FILE`, for
`python agents/evaluate.py FILE`, or for `sleepgym.learning.load_policy(FILE)`. The JSON beside each is its card:
algorithm, environment, seed, steps, and the score on validation streams by which the checkpoint was chosen. How they
were trained, and what they do elsewhere, is in [docs/results.md](../../docs/results.md).

| file | seed | steps | validation score | test score | SHA-256 |
|---|---:|---:|---:|---:|---|
{rows}

They read the ledger as a set of facts, and know of the language model what the observation says. Meant for `{env_id}`
as it is in this version; other cards are outside what they have seen. Not meant for deciding anything about a model
that people depend on.

**A policy file is code**: Stable-Baselines3 unpickles parts of it. These were written by `agents/ppo.py`; the sums
above say whether a file is one of them.
"""
