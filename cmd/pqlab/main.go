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
	ran, err := root.ExecuteContextC(ctx)
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
		fmt.Fprintln(os.Stderr, "pqlab: interrupted"+interrupted(ran))
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
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) (err error) {
		c.Flags().Visit(func(f *pflag.Flag) {
			if f.Value.Type() == "string" && f.Value.String() == "" { // a shell's variable that is not set, and would mean as much as no flag
				err = errors.Join(err, usageError{fmt.Errorf("--%s: is empty; leave it out or give it a value", f.Name)})
			}
		})
		return err
	}
	group(root)
	root.AddCommand(
		newDoctor(), newTopologies(), newCheck(), newSchema(), newShow(),
		newPs(), newExec(), newCapture(), newDown(), newLink(), newBench(), newSupervise(),
	)
	root.AddCommand(takeDownTheirOwn(newRun(), newUp(), newTest(), newExperiment(), newVM())...)
	return root
}

// ifInterrupted is the annotation that says what is true of the labs when a command was interrupted.
const ifInterrupted = "interrupted"

// takeDownTheirOwn marks commands that have taken down whatever they made before the error of their context comes back.
func takeDownTheirOwn(commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.Annotations = map[string]string{ifInterrupted: "what was up has been taken down"}
	}
	return commands
}

// interrupted is what a command, or that which it belongs to, says of the labs. Others know nothing of labs.
func interrupted(c *cobra.Command) string {
	for ; c != nil; c = c.Parent() {
		if says := c.Annotations[ifInterrupted]; says != "" {
			return "; " + says
		}
	}
	return ""
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
