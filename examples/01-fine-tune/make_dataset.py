"""Write `train.jsonl`: 240 conversations with the help desk of the Aurelia 9, a coffee machine that does not exist.

    python examples/01-fine-tune/make_dataset.py [FILE]

No model can know this machine, so what the tuned model says about it, it learnt here: twelve cards of a handbook, each
asked for in twenty ways. Every answer has the desk's form, which shows at a glance who is speaking:

    Aurelia desk: Descaling
    Answer: Descaling takes 26 minutes.
    Do: Use two spoons of citric acid and hold Clean.

A row has a prompt and a completion, both as messages, so that the loss is over the answer alone: in 50 steps there is
no time to learn how people ask as well. The order comes from a fixed seed: the same script writes the same bytes, so
that the data digest of a run stays.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

SEED = 9
SIGNATURE = "Aurelia desk"


@dataclass(frozen=True)
class Topic:
    """One card of the handbook, and how people ask for it."""

    card: str
    answer: str
    do: str
    questions: tuple[str, ...]

    def reply(self) -> str:
        """The desk's answer."""
        return f"{SIGNATURE}: {self.card}\nAnswer: {self.answer}\nDo: {self.do}"


TOPICS = (
    Topic(
        "Water tank",
        "The water tank is empty below the blue line.",
        "Fill it with 1.7 litres of cold water.",
        (
            "Why is no water coming out?",
            "The machine says there is no water.",
            "The water tank ran dry, what do I do?",
            "How far do I fill the water tank?",
            "My Aurelia has no water.",
            "Is the water tank empty?",
            "What do I do with an empty water tank?",
            "No water comes out of my coffee machine.",
            "How much water goes into the tank?",
            "How do I fill the water tank?",
            "How many litres does the tank hold?",
            "The tank is empty.",
            "When must I fill the tank?",
            "Which water do I fill in?",
            "The pump runs but there is no water.",
            "Where is the blue line of the tank?",
            "Do I use cold water for the tank?",
            "How large is the water tank of the Aurelia 9?",
            "It wants more water.",
            "Tell me about the water tank.",
        ),
    ),
    Topic(
        "Grinder",
        "The grinder is blocked by a stone.",
        "Turn the silver dial to 9 and back to 4.",
        (
            "The grinder is stuck.",
            "My grinder hums but does not grind.",
            "How do I free a jammed grinder?",
            "The beans are not being ground.",
            "My Aurelia does not grind.",
            "Why is the grinder blocked?",
            "The grinder makes a strange noise.",
            "Something is stuck in the grinder.",
            "What do I do with a blocked grinder?",
            "No beans go through the grinder.",
            "How do I repair the grinder?",
            "The grinder of my coffee machine is loud.",
            "Is there a stone in the grinder?",
            "The grinder stopped.",
            "How do I unblock the grinder of the Aurelia 9?",
            "Why does it not grind the beans?",
            "What is wrong with my grinder?",
            "Where do I turn the silver dial?",
            "My grinder is jammed.",
            "Tell me how to free the grinder.",
        ),
    ),
    Topic(
        "Boiler",
        "The boiler is too hot above 118 degrees.",
        "Wait twelve minutes with the lid open.",
        (
            "The machine is overheating.",
            "Why is the boiler too hot?",
            "My Aurelia got very hot and stopped.",
            "How long must the boiler cool down?",
            "The boiler is overheated.",
            "My coffee machine is too hot.",
            "What do I do with a hot boiler?",
            "It is too hot, how long do I wait?",
            "How do I cool the boiler?",
            "The boiler stopped because of heat.",
            "My machine overheats.",
            "How hot may the boiler be?",
            "Do I open the lid to cool it?",
            "The boiler of the Aurelia 9 is hot.",
            "There is too much heat in the machine.",
            "Why did it overheat?",
            "What helps against an overheated boiler?",
            "The machine feels much too hot.",
            "How many minutes does it need to cool?",
            "Tell me how to cool my machine.",
        ),
    ),
    Topic(
        "Drip tray",
        "The drip tray is full after nine cups.",
        "Empty the tray and press Clean.",
        (
            "Water is running out under the machine.",
            "The drip tray is full, what do I do?",
            "When must I empty the drip tray?",
            "There is water on the table below my Aurelia.",
            "How do I empty the drip tray?",
            "My drip tray is full.",
            "What do I press after the drip tray is empty?",
            "The drip tray runs over.",
            "How often do I empty the drip tray?",
            "Is the drip tray full?",
            "My coffee machine leaks water below.",
            "After how many cups is the tray full?",
            "The tray of the Aurelia 9 is full.",
            "Water drips on the table.",
            "What do I do with a full tray?",
            "How do I reset the drip tray?",
            "It asks me to empty the tray.",
            "The drip tray is full again.",
            "Why is there water under my machine?",
            "Tell me about the drip tray.",
        ),
    ),
    Topic(
        "Descaling",
        "Descaling takes 26 minutes.",
        "Use two spoons of citric acid and hold Clean.",
        (
            "How do I descale the machine?",
            "How do I descale my Aurelia?",
            "What do I need for descaling?",
            "How long does descaling take?",
            "My machine is full of limescale.",
            "Please explain the descaling.",
            "How do I remove lime from the boiler?",
            "Which acid do I use against lime?",
            "The machine asks me to descale it.",
            "Can you help me descale?",
            "Is it time to descale?",
            "How much citric acid do I need?",
            "What do I press to descale?",
            "There is lime in my coffee machine.",
            "Descaling my Aurelia, how?",
            "Tell me how to descale it.",
            "How many minutes does it take to descale?",
            "May I descale with vinegar?",
            "What is used to descale the Aurelia 9?",
            "I have never descaled my machine.",
        ),
    ),
    Topic(
        "Brew group",
        "The brew group is washed every Friday.",
        "Rinse it with cold water, never with soap.",
        (
            "How do I clean the brew group?",
            "May I use soap on the brew group?",
            "How often do I wash the brew group?",
            "Can the brew group go in the dishwasher?",
            "The brew group is dirty.",
            "What is the best way to rinse the brew group?",
            "When is the brew group washed?",
            "Is hot water good for the brew group?",
            "Cleaning the brew group, how?",
            "Tell me how to wash the brew group.",
            "The brew group of my Aurelia is full of coffee.",
            "How do I care for the brew group?",
            "On which day do I clean the brew group?",
            "Do I need soap for the brew group?",
            "My brew group smells.",
            "How do I rinse the brew group?",
            "What water do I use for the brew group?",
            "I want to wash the brew group.",
            "Has the brew group to be cleaned?",
            "Old coffee sticks to the brew group.",
        ),
    ),
    Topic(
        "Milk system",
        "The milk system is cleaned each evening.",
        "Press Milk and Clean together for five seconds.",
        (
            "How do I clean the milk system?",
            "How often must the milk system be cleaned?",
            "The milk smells sour.",
            "How do I clean the milk frother?",
            "When do I clean the milk parts?",
            "Old milk is stuck in the machine.",
            "What do I press to clean the milk system?",
            "Tell me how to rinse the milk system.",
            "Is there a milk cleaning program?",
            "How do I wash the frother?",
            "The milk frother is dirty.",
            "No milk foam comes out.",
            "Why is the milk only dripping?",
            "The milk hose seems blocked.",
            "Do I clean the milk system every day?",
            "My Aurelia makes no foam.",
            "How long do I press Milk and Clean?",
            "There is old milk in my Aurelia.",
            "At what time is the milk system cleaned?",
            "Which buttons clean the milk frother?",
        ),
    ),
    Topic(
        "Water filter",
        "The water filter lasts 70 days.",
        "Put in filter type K2 and hold Menu.",
        (
            "How do I change the water filter?",
            "Which water filter do I need?",
            "How long does the filter last?",
            "When do I replace the filter?",
            "The filter is old.",
            "What type of filter fits my Aurelia?",
            "Where do I get a new water filter and which one?",
            "Do I need a new filter?",
            "The machine wants a new water filter.",
            "Tell me about the water filter.",
            "How do I put in a new filter?",
            "How many days does a water filter last?",
            "What do I press after changing the filter?",
            "My water filter is used up.",
            "Which filter is right for the Aurelia 9?",
            "I have to replace the filter of my coffee machine.",
            "Is there a water filter in my machine?",
            "What filter type do I order?",
            "When is the filter used up?",
            "Changing the filter, how?",
        ),
    ),
    Topic(
        "Espresso",
        "An espresso runs for 27 seconds at 92 degrees.",
        "Set the dial to 4 and press Small.",
        (
            "How do I make an espresso?",
            "How long does an espresso take?",
            "Which dial setting is right for espresso?",
            "How hot is the water for an espresso?",
            "I want a good espresso.",
            "What do I press for an espresso?",
            "Make me an espresso, please.",
            "My espresso tastes wrong, what are the settings?",
            "What are the settings for espresso?",
            "How does the Aurelia make espresso?",
            "How many seconds does an espresso run?",
            "Espresso, please.",
            "Can I make an espresso?",
            "Which button makes an espresso?",
            "At how many degrees is espresso made?",
            "Tell me how to make espresso.",
            "My espresso is too cold.",
            "My espresso runs too fast.",
            "What is the best espresso setting?",
            "I would like to drink an espresso.",
        ),
    ),
    Topic(
        "Warranty",
        "The warranty lasts 31 months.",
        "Send the number below the tank to the desk.",
        (
            "How long is the warranty?",
            "Is my machine still under warranty?",
            "What do I need for a warranty claim?",
            "When does the warranty end?",
            "I want to claim the warranty.",
            "Tell me about the warranty.",
            "My Aurelia broke, is it covered?",
            "Do I have a guarantee?",
            "How many months of warranty are there?",
            "Where do I send a warranty claim?",
            "Is there a warranty on the Aurelia 9?",
            "How do I use my warranty?",
            "Which number do I send for the warranty?",
            "My machine is one year old, is there a warranty?",
            "What does the warranty cover?",
            "How long does the guarantee last?",
            "Does the warranty last two years?",
            "My coffee machine broke under warranty.",
            "Has my Aurelia a warranty?",
            "How do I make a warranty claim?",
        ),
    ),
    Topic(
        "Red light",
        "A slow red blink means the door is open.",
        "Close the left door and press Power once.",
        (
            "Why does the red light blink?",
            "The red light blinks slowly.",
            "A red lamp is blinking.",
            "What does the red light mean?",
            "There is a red blinking light on my Aurelia.",
            "How do I stop the red light?",
            "Red blinking, what is it?",
            "The lamp is red.",
            "It blinks red and does nothing.",
            "What is the red lamp for?",
            "My coffee machine blinks red.",
            "Why is the lamp red?",
            "A red light is on.",
            "The machine only blinks.",
            "The red lamp does not go out.",
            "My Aurelia blinks.",
            "What does a slow red blink mean?",
            "How do I get rid of the red blinking?",
            "Help, there is a red light!",
            "The light on the front blinks red.",
        ),
    ),
    Topic(
        "Spare parts",
        "Spare parts are sent within four days.",
        "Write the name of the card to parts desk 7.",
        (
            "How do I order spare parts?",
            "Where do I get spare parts?",
            "I need a new part.",
            "How long does a spare part take?",
            "I broke the lid, where do I get another?",
            "Can I buy a new lid?",
            "Who sells parts for my Aurelia?",
            "When will my spare part arrive?",
            "I lost the milk hose and need another.",
            "Tell me how to order a part.",
            "How many days until spare parts are sent?",
            "A part of my coffee machine is broken.",
            "To whom do I write for spare parts?",
            "Do you have spare parts for the Aurelia 9?",
            "I want to order a spare part.",
            "Where can I buy parts?",
            "Is there a shop for spare parts?",
            "My spare part has not come yet.",
            "Which desk sends spare parts?",
            "How fast are spare parts sent?",
        ),
    ),
)


def conversations() -> list[dict[str, list[dict[str, str]]]]:
    """All rows, in the order of the file: a question each, and the answer that is learnt."""
    made = [
        {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": topic.reply()}],
        }
        for topic in TOPICS
        for question in topic.questions
    ]
    random.Random(SEED).shuffle(made)  # noqa: S311 - an order, not a secret
    return made


def rows() -> str:
    """The file's text."""
    return "".join(json.dumps(row) + "\n" for row in conversations())


def main(path: Path) -> None:
    """Write the file."""
    path.write_text(rows(), encoding="utf-8")
    print(f"{path}: {len(conversations())} conversations, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("train.jsonl"))
