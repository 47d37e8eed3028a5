"""Numbers of pictures: sets in groups and their measures, tables of them, and the stages that fill those, by study."""
