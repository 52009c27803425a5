// Command pqlab makes post-quantum IPsec labs real and verifies them. It holds no logic: flags in, text or JSON out.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pqlab/agent"
	"pqlab/internal/journal"
	"pqlab/internal/vm/guest"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/suites"
)

// version is set when a release is built: -ldflags "-X main.version=v1.2.3".
var version = "devel"

func main() {
	guest.Main()
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	suites.Main()
	os.Exit(execute(os.Args[1:]))
}

func execute(args []string) int {
	var stops []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, or a shell's background job
			stops = append(stops, s)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	if len(stops) > 0 { // of none, all would be meant
		ctx, stop = signal.NotifyContext(ctx, stops...)
	}
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var (
		silent exitError
		left   *lab.DownError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return int(silent)
	case ctx.Err() != nil && errors.As(err, &left):
		fmt.Fprintln(os.Stderr, "pqlab: interrupted;", left)
		return exitFailed
	case ctx.Err() != nil:
		// Whatever ctx stopped has been taken down before its error came here.
		fmt.Fprintln(os.Stderr, "pqlab: interrupted; what was up has been taken down")
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "pqlab:", err)
	return exitCode(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "pqlab",
		Short:         "A testbed for post-quantum IPsec",
		Long:          "pqlab makes a lab from one description, keys its ESP tunnels by a post-quantum exchange, and measures them.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		var number *strconv.NumError
		if errors.As(err, &bad) && errors.As(err, &number) { // whose text names a function
			err = fmt.Errorf("--%s %q: %w; want a %s", bad.GetFlag().Name, bad.GetValue(), number.Err, bad.GetFlag().Value.Type())
		}
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	group(root)
	root.AddCommand(
		newDoctor(), newTopologies(), newCheck(), newSchema(), newShow(),
		newRun(), newUp(), newPs(), newExec(), newCapture(), newDown(), newLink(), newTest(), newBench(), newExperiment(), newVM(), newSupervise(),
	)
	return root
}

// group makes a command that has only subcommands refuse words that are none of them.
func group(c *cobra.Command) {
	c.Args = func(c *cobra.Command, a []string) error {
		if len(a) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q", a[0])
		if near := c.SuggestionsFor(a[0]); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return usageError{fmt.Errorf("%s; see %s --help", text, c.CommandPath())}
	}
	c.SuggestionsMinimumDistance = 2
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}
