# %% [markdown]
# # A model that remembers you
#
# The memory without any reinforcement learning: tell a model what is so, ask it, correct it, let it sleep, and go on
# tomorrow.

# %%
from dataclasses import replace

from sleepgym import Fact, SleepingLM

NIGHTS = 4


facts = [
    Fact("Aria Nakamura", "Aria Nakamura lives in", "Oslo", questions=("Where does Aria Nakamura live?",)),
    Fact("Tom Vekkal", "Tom Vekkal works as a", "baker", questions=("What is the job of Tom Vekkal?",)),
    Fact("Nadia Brenn", "Nadia Brenn lives in", "Lisbon", questions=("Where does Nadia Brenn live?",)),
]

# %% [markdown]
# What is told is written into the weights at once, as edits. The base model's own weights are never touched, so every
# edit can be taken back exactly.

# %%
model = SleepingLM.from_pretrained("tiny")
print(f"recalled {model.inject(facts).recall:.0%}")
for fact in facts:
    print(fact.questions[0], model.ask(fact.questions[0]))

# %% [markdown]
# A correction is the same fact with another object; it takes the old one's place. `prune` forgets.

# %%
moved = replace(facts[0], object="Porto")
model.inject([moved])
model.prune([facts[2].key])
print(moved.questions[0], model.ask(moved.questions[0]))
assert model.ask(moved.questions[0]) == "Porto" and facts[2].key not in model.state.ledger

# %% [markdown]
# Edits wear each other out. A night moves what holds without its edit into an adapter, a stage at a time, and is
# undone if it did harm. After some nights, the edits are gone and the facts are still there.

# %%
for night in range(1, NIGHTS + 1):
    report = model.sleep()
    print(f"night {night}: {len(report.advanced)} facts advanced, recall {report.recall_after:.0%}")
print("scales of the edits:", [model.state.scale_of(fact.key) for fact in (moved, facts[1])])

# %% [markdown]
# What is left for tomorrow is a folder of safetensors and JSON.

# %%
model.save("my-memory")
tomorrow = SleepingLM.from_pretrained("tiny")
tomorrow.load("my-memory")
print(moved.questions[0], tomorrow.ask(moved.questions[0]))
assert tomorrow.ask(moved.questions[0]) == model.ask(moved.questions[0])

# %% [markdown]
# Three days of such a conversation with Gemma 3 270M are [an example of its own](../assistant.md). In the terminal:
# `sleepgym chat`; with `--notes DIR`, what is remembered is also in Markdown files that you can edit.
