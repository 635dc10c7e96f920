"""Openings for the models to continue, and how they are divided among the steps of an experiment."""

from __future__ import annotations

import random
from collections.abc import Sequence

from utils.data.steering import OTHER_TOPICS

PROMPTS: tuple[str, ...] = tuple("""
My day at work was
Yesterday evening my brother
The letter on the table said that
When I opened the door, I saw
The weather this week
My neighbour told me that
Last summer we went to
The new restaurant in our street
On the way to school, the boy
I have been thinking about
The man at the station
After the meeting, she
The house where I grew up
In the morning the old woman
The book that I am reading
My sister called me because
The bus was late, so we
For dinner we had
The teacher looked at the class and
At the end of the day, they
The film that we saw last night
Nobody in the village knew
The phone rang and a voice
In my opinion, the best thing about
A friend of mine once
The girl behind the counter
During the long journey, he
The museum in our town
My first memory is
The doctor came in and
Every Sunday the family
The photograph shows
When the lights went out, everyone
I wrote to the company because
The dog next door
Two years ago my parents
The young man sat down and
In the middle of the night
The news on the radio said
My uncle always tells
The road through the forest
She put the box on the floor and
The first thing that you notice is
When winter came, the farmer
The results of the test
He looked out of the window and
The shop on the corner
As a child, I used to
The train to the city
Her plan for the weekend
The students in the library
It was my birthday, and
The story begins when
Our guests arrived and
The woman in the red coat
I could not sleep because
The garden behind the house
On the last page of the diary
The team met again and
What I remember of that year
The captain of the team
In the newspaper there was
The room was quiet until
My grandfather used to say
The bridge over the river
On the first day of the course
The people on the platform
After lunch the two of them
The box in the attic was
I was told that the new director
The child at the next table
Somebody had left
When the music stopped, the dancers
The answer to her question
In the drawer of the desk
The colour of the walls
My cousin has decided to
Outside the station a crowd
The second half of the match
At the market they sell
""".strip().splitlines())
"""80 openings that could go on in any mood and about anything."""
WORK: tuple[str, ...] = (*OTHER_TOPICS["office"], *"""
My boss asked me to finish the presentation.
The invoice has to be paid before the end of the month.
She was promoted to head of the sales team.
The colleagues had lunch in the canteen.
He works from nine to five at an insurance company.
The new software makes the work in the office faster.
Our customers complained about the delivery.
The interview for the job took an hour.
""".strip().splitlines())
WORK_PROMPTS: tuple[str, ...] = tuple("""
The meeting with the manager
My colleague in the office
The report for the company
Our new customer
The job interview
At my desk this morning, I
The boss called me and
The department for sales
The contract that we signed
The budget for next year
The project with the engineers
My salary at the company
The secretary of the director
An email from the accountant
The employees of the factory
The training for new staff
The deadline for the report
The conference call with the client
My promotion to manager
The office on the third floor
The company where I work
My team leader
The invoice from the supplier
At the staff meeting
The presentation for the investors
The head of our department
My application for the position
The sales figures of this quarter
The intern in the marketing team
After eight hours at the office
The employer has to
The clerk at the reception desk
The agenda for the board meeting
The manager of the branch
The new computer system at work
Our biggest client
The overtime that I worked
The secretary typed
The contract with the union
My first day in the new job
""".strip().splitlines())
"""40 openings about work, for steering under a condition."""


def split_prompts(sizes: Sequence[int], seed: int = 0, prompts: Sequence[str] = PROMPTS) -> list[list[str]]:
    """Draw one list of prompts per size, none twice. Raises ValueError when the sizes ask for more than there are."""
    if sum(sizes) > len(prompts):
        raise ValueError(f"{sum(sizes)} prompts were asked for, and there are {len(prompts)}.")
    order = random.Random(seed).sample(list(prompts), sum(sizes))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [order[end - size : end] for end, size in zip(ends, sizes)]
