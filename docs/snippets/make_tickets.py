"""Writes tickets.csv: 1,200 made-up support tickets, each with one to three tags."""

import csv
import random

PHRASES = {
    "billing": ["the invoice is wrong", "I was charged twice", "the amount on my card is off"],
    "refund": ["please send the money back", "I want a refund", "cancel it and pay me back"],
    "login": ["I cannot sign in", "my password is not accepted", "the reset link has expired"],
    "shipping": ["the parcel has not arrived", "the tracking page is empty", "wrong address"],
    "damaged": ["the box was crushed", "the screen is cracked", "a part is missing"],
    "praise": ["great service", "thank you for the quick help", "everything works now"],
}
OPENINGS = ["Hello,", "Hi team,", "Good morning,", "To whom it may concern,", ""]
FILLER = [
    "I have been a customer for years",
    "my order number is {n}",
    "I wrote to you last week",
    "please answer soon",
    "I bought it on {n} March",
    "kind regards",
]
TOGETHER = {"billing": "refund", "damaged": "refund", "shipping": "damaged"}

rng = random.Random(7)
with open("tickets.csv", "w", newline="", encoding="utf-8") as stream:
    rows = csv.writer(stream)
    rows.writerow(["id", "title", "body", "tags", "channel"])
    for number in range(1, 1201):
        tags = {rng.choice(list(PHRASES))}
        tags |= {TOGETHER[tag] for tag in tags if tag in TOGETHER and rng.random() < 0.4}
        sentences = [rng.choice(PHRASES[tag]) for tag in sorted(tags)]
        sentences += [text.format(n=rng.randrange(1, 31)) for text in rng.sample(FILLER, 2)]
        if rng.random() < 0.15:  # people mention what a ticket is not about
            sentences.append("it is not about " + rng.choice(list(PHRASES)))
        rng.shuffle(sentences)
        if rng.random() < 0.05:  # and agents forget tags
            tags.discard(min(tags))
        title = sentences[0].split(" ", 2)[-1]
        body = f"{rng.choice(OPENINGS)} {'. '.join(sentences)}."
        channel = rng.choice(["mail", "chat", "phone"])
        rows.writerow([f"t{number}", title, body, ";".join(sorted(tags)), channel])
