from tinygpt.cli import exit_with_code
from tinygpt.commands import main

exit_with_code(main)
