/* main.c - tensoronecli, the tenant's command line.  Runs as the user, talks to nothing but the
 * API that the settings name. */
#include <signal.h>

#include "cli/cli.h"

int main(int argc, char **argv)
{
        /* a reader that goes away is an error that is reported, not a death half-way */
        (void) signal(SIGPIPE, SIG_IGN);
        return cli_main(argc, argv);
}
