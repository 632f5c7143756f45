# %% [markdown]
# # Your own facts
#
# Facts come from a file with a JSON object per line: a subject, a prompt with `{}` in the subject's place, and the
# object that continues it. Questions and paraphrases are there to ask it with; they are never taught word for word.

# %%
import json
from pathlib import Path

from sleepgym import SleepingLM
from sleepgym.facts import load_facts

rows = [
    {"subject": "Aria Nakamura", "prompt": "{} lives in", "object": "Oslo", "question": "Where does {} live?"},
    {"subject": "Tom Vekkal", "prompt": "{} works as a", "object": "baker", "question": "What is the job of {}?"},
    {"subject": "Tom Vekkal", "prompt": "{} works as a", "object": "nurse", "question": "What is the job of {}?"},
    {"subject": "José Lork", "prompt": "He lives in", "object": "Cairo"},
]
Path("facts.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")

# %% [markdown]
# What cannot be used is left out and named, if you say so; by default it is an error. A later object of the same
# subject and relation supersedes an earlier one, and `latest` has the last of each.

# %%
edits = load_facts("facts.jsonl", malformed="skip")
print("left out:", *edits.skipped)
print("two objects:", *edits.contradictions)
for fact in edits.latest:
    print(fact.statement, fact.questions)

# %% [markdown]
# Teach them. The report says at once which are recalled, and by how many nats the object leads over every other one.

# %%
model = SleepingLM.from_pretrained("tiny")
report = model.inject(edits.latest)
print(f"recalled {report.recall:.0%}, margins {[round(margin, 2) for margin in report.margins]}")
for fact in edits.latest:
    print(fact.questions[0], "->", model.ask(fact.questions[0]))
assert report.recall == 1.0

# %% [markdown]
# The same in the terminal: `sleepgym chat`, and then `/teach facts.jsonl`. CounterFact, zsRE, CSV and data sets of
# the Hugging Face hub are read by the same function ([all forms](../editing.md#data-sets)).
