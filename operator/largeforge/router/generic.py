"""Sentences that belong to no expert: what people say to any assistant. They are learnt as examples of nobody.

One that is like an expert's example is left out while that expert is there (`fit`).
"""

from __future__ import annotations

SENTENCES = tuple(
    line.strip()
    for line in """
    hi there, how are you
    what can you do
    who are you and who made you
    are you a robot or a real person
    what is your name
    how old are you
    where do you live
    do you have feelings
    can you speak other languages
    what languages do you speak
    thank you, that was helpful
    you are wrong
    that is not what i asked
    try again
    can you repeat that
    say that again in simpler words
    make it shorter
    make it longer
    continue
    go on
    give me another example
    what do you mean
    i don't understand
    why
    yes
    no
    maybe later
    never mind
    forget it
    stop
    goodbye, see you tomorrow
    tell me a joke
    tell me something interesting
    surprise me
    i am bored
    i am tired today
    i feel lonely
    do you like music
    what is your favourite colour
    what is the meaning of life
    what do you think about that
    flip a coin
    pick a number between one and ten
    roll a dice
    what time is it
    what day is it today
    how many days until christmas
    what is the weather like today
    will it rain tomorrow
    set an alarm for seven
    remind me to call my mother
    add milk to my shopping list
    turn off the lights in the kitchen
    play some music
    turn the volume down
    call me a taxi
    send a message to anna
    where is my phone
    what's the latest news
    who won the game last night
    what is the capital of australia
    how tall is mount everest
    how far away is the moon
    who wrote this book
    who is the president of france
    when was the telephone invented
    why is the sky blue
    how do birds fly
    what do cats eat
    how long do turtles live
    what should i wear to the party
    recommend me a good film
    what should i give my friend as a present
    how do i tie a tie
    how can i fall asleep faster
    how do i get a stain out of a shirt
    how do i fix a flat tire
    where can i buy a cheap sofa
    what is the best phone to buy
    is it safe to swim after eating
    how do you spell necessary
    translate good morning into japanese
    what does this word mean
    summarize this for me
    write a letter to my landlord
    write a birthday wish for my sister
    fix the grammar of this sentence
    how do i learn to play the guitar
    what are good names for a dog
    how do i train for a marathon
    give me tips for a job interview
    how do i become more confident
    what happened in the year 1969
    are there people on mars
    do aliens exist
    what is love
    let's play a game
    tell me a story
    wie geht es dir
    was kannst du
    wie spät ist es
    erzähl mir einen witz
    comment ça va
    quel temps fait-il
    raconte-moi une histoire
    qué hora es
    cómo estás
    cuéntame un chiste
    """.strip().splitlines()
)
