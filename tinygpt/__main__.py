from tinygpt.cli import exit_with_code, main

exit_with_code(main)
