"""
A Pydantic AI agent of a few lines: serve it with `holdfast serve examples/weather.py:agent`.

It runs on the model that WEATHER_MODEL names, such as `anthropic:claude-sonnet-5-5`; without it, on Pydantic AI's test
model, which calls every tool once and tells what they answered.
"""

import os

from pydantic_ai import Agent

agent = Agent(
    os.environ.get("WEATHER_MODEL", "test"),
    name="weather",
    instructions="Say how cold it feels, from what the wind_chill tool answers.",
)


@agent.tool_plain
async def wind_chill(temperature_c: float, wind_kmh: float) -> float:
    """
    How cold it feels, in degrees Celsius.

    The index Canada and the United States use since 2001; below 4.8 km/h wind does not count.

    Args:
        temperature_c: Air temperature in degrees Celsius.
        wind_kmh: Wind speed in kilometres an hour, ten metres above ground.
    """
    if wind_kmh < 4.8:
        return temperature_c
    wind: float = wind_kmh**0.16
    return round(13.12 + 0.6215 * temperature_c - 11.37 * wind + 0.3965 * temperature_c * wind, 1)
