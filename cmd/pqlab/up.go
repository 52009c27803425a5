package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pqlab/internal/rootless"
	"pqlab/run"
	"pqlab/supervisor"
	"pqlab/topology"
)

// superviseCommand is how up starts the process that holds a lab.
const superviseCommand = "supervise"

// upTimeout bounds how long a lab may take to come up.
const upTimeout = 2 * time.Minute

func newUp() *cobra.Command {
	c := &cobra.Command{
		Use: "up TOPOLOGY", Short: "Make a lab that stays until pqlab down",
		Long: `up makes a lab of TOPOLOGY, keys its tunnels, and leaves it to a process of its own. When that process
ends, however it ends, the lab is gone.`,
		Args: args(cobra.ExactArgs(1)),
	}
	asJSON := jsonFlag(c)
	name := c.Flags().String("name", "", "of the lab; otherwise that of the topology")
	tunnels := addTunnelFlags(c)
	addFatesFlags(c, addLabFlags(c)) // what they say is the supervisor's
	addReachFlag(c)                  // so is this
	c.RunE = func(c *cobra.Command, a []string) error {
		p, err := tunnels.plan(a[0]) // mistakes are told before anything is started
		if err != nil {
			return err
		}
		lab := p.Name
		if *name != "" {
			lab = *name
		}
		if err := supervisor.CheckName(lab); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
		again := slices.Clone(os.Args[1:])
		again[slices.Index(again, "up")] = superviseCommand
		shown := newProgress(*asJSON)
		err = supervisor.Launch(c.Context(), lab, again, upTimeout, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printStatus(c, lab)
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is up: %s; pqlab exec %s %s -- COMMAND, pqlab down %s\n",
			lab, count(len(p.Nodes), "node"), lab, p.Nodes[0].Name, lab)
		return nil
	}
	return c
}

func addReachFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("strict", false, "refuse (exit 1) a lab with a link that cannot have its rate here; it is tried before the lab is used")
}

// newSupervise is what up starts; it takes the same flags.
func newSupervise() *cobra.Command {
	c := &cobra.Command{Use: superviseCommand + " TOPOLOGY", Hidden: true, Args: args(cobra.ExactArgs(1))}
	jsonFlag(c)
	c.Flags().String("name", "", "")
	tunnels, labs := addTunnelFlags(c), addLabFlags(c)
	addFatesFlags(c, labs)
	strict := addReachFlag(c)
	c.RunE = func(_ *cobra.Command, a []string) error {
		p, err := tunnels.plan(a[0])
		if err != nil {
			return err
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		return supervisor.Run(func(ctx context.Context, progress func(string)) (supervisor.Lab, error) {
			o := labs.options()
			o.Reach = *strict
			return run.Hold(ctx, p, o, progress)
		}, exitCode)
	}
	return c
}

func printStatus(c *cobra.Command, lab string) error {
	client, err := dial(c.Context(), lab)
	if err != nil {
		return err
	}
	status, err := client.Status(c.Context())
	if err != nil {
		return err
	}
	return printJSON(c.OutOrStdout(), status)
}

func newPs() *cobra.Command {
	c := &cobra.Command{
		Use: "ps [LAB]", Short: "List the labs that are up, or describe one", Args: args(cobra.MaximumNArgs(1)),
		Annotations: map[string]string{ifInterrupted: "the labs stay as they are"},
		Long: `ps lists the labs that are up, or describes one: its nodes, links and tunnels. With --wifi it shows what each station of
its Wi-Fi cells does with the airtime: on a terminal each second, what has changed since, until Ctrl-C; elsewhere, and
with --json, once, what was since the cell began.`,
	}
	asJSON := jsonFlag(c)
	air := c.Flags().Bool("wifi", false, "show the Wi-Fi cells of LAB: SNR, rate, airtime, A-MPDUs, errors, retries, queues")
	c.RunE = func(c *cobra.Command, a []string) error {
		if *air {
			if len(a) == 0 {
				return usageError{errors.New("--wifi: which lab? pqlab ps lists them")}
			}
			return psWiFi(c, a[0], *asJSON)
		}
		if len(a) == 1 {
			if *asJSON {
				return printStatus(c, a[0])
			}
			return describe(c, a[0])
		}
		labs, err := supervisor.List(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			type entry struct {
				Name   string             `json:"name"`
				PID    int                `json:"pid"`
				Status *supervisor.Status `json:"status,omitempty"`
				Error  string             `json:"error,omitempty"`
			}
			out := make([]entry, len(labs))
			for i, l := range labs {
				out[i] = entry{Name: l.Name, PID: l.PID}
				if l.Err != nil {
					out[i].Error = l.Err.Error()
				} else {
					out[i].Status = &l.Status
				}
			}
			return printJSON(c.OutOrStdout(), out)
		}
		rows := [][]string{{"LAB", "TOPOLOGY", "STATE", "NODES", "TUNNELS", "UP", "PID"}}
		for _, l := range labs {
			if l.Err != nil {
				rows = append(rows, []string{l.Name, "", "no answer: " + l.Err.Error(), "", "", "", strconv.Itoa(l.PID)})
				continue
			}
			rows = append(rows, []string{
				l.Name, l.Status.Topology, string(l.Status.State), strconv.Itoa(len(l.Status.Nodes)),
				strconv.Itoa(len(l.Status.Tunnels)), time.Since(l.Status.Since).Round(time.Second).String(), strconv.Itoa(l.PID),
			})
		}
		return table(c.OutOrStdout(), rows...)
	}
	return c
}

func describe(c *cobra.Command, lab string) error {
	client, err := dial(c.Context(), lab)
	if err != nil {
		return err
	}
	s, err := client.Status(c.Context())
	if err != nil {
		return err
	}
	rows := [][]string{{"NODE", "KIND", "PID", "CPU", "ADDRESSES"}}
	for _, n := range s.Nodes {
		var addresses []string
		for _, a := range n.Addresses {
			addresses = append(addresses, a.String())
		}
		pid := "-"
		if n.PID > 0 {
			pid = strconv.Itoa(n.PID)
		}
		rows = append(rows, []string{n.Name, n.Kind, pid, fmt.Sprintf("%.2f s", n.CPU), strings.Join(addresses, " ")})
		if n.Error != "" {
			rows = append(rows, []string{"", n.Error})
		}
	}
	rows = append(rows, nil, []string{"LINK", "KIND", "SHAPER", "A", "B", "SHAPE"})
	for _, l := range s.Links {
		rows = append(rows, linkRows(l)...)
	}
	rows = append(rows, nil, []string{"TUNNEL", "SUITE", "REKEYS", "DATAPLANE", "SAS"})
	for _, t := range s.Tunnels {
		var sas []string
		for _, sa := range t.SAs {
			sas = append(sas, fmt.Sprintf("%s %s %#08x %d packets", sa.Node, sa.Direction, sa.SPI, sa.Packets))
		}
		rows = append(rows, []string{t.Name, t.Suite, strconv.FormatUint(t.Rekeys, 10), t.Dataplane, strings.Join(sas, "; ")})
		if t.Error != "" {
			rows = append(rows, []string{"", t.Error})
		}
	}
	return table(c.OutOrStdout(), rows...)
}

func newExec() *cobra.Command {
	c := &cobra.Command{
		Use: "exec LAB NODE -- COMMAND [ARGUMENT…]", Short: "Run a command in a node of a lab that is up",
		Args:        args(cobra.MinimumNArgs(3)),
		Annotations: map[string]string{ifInterrupted: "the lab stays as it is"},
	}
	c.RunE = func(c *cobra.Command, a []string) error {
		client, err := dial(c.Context(), a[0])
		if err != nil {
			return err
		}
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		// Exec passes signals on itself, so its context is not the one that they end.
		status, err := client.Exec(context.WithoutCancel(c.Context()), a[1], supervisor.Command{
			Path: a[2], Args: a[3:], Env: os.Environ(), Dir: dir, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			TTY: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "pqlab:", err)
			if code := exitCode(err); code == exitUsage {
				return exitError(code)
			}
		}
		if status != 0 {
			return exitError(status)
		}
		return nil
	}
	return c
}

func newDown() *cobra.Command {
	c := &cobra.Command{
		Use: "down LAB…", Short: "Take labs down", Args: args(cobra.MinimumNArgs(1)),
		Annotations: map[string]string{ifInterrupted: "what it has not said to be down may stay up, or go down yet; pqlab ps tells"},
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, labs []string) error {
		var down []string
		var errs []error
		for _, lab := range labs { // one that cannot be taken down does not keep the others up
			if err := takeDown(c.Context(), lab); err != nil {
				errs = append(errs, err)
				continue
			}
			down = append(down, lab)
			if !*asJSON {
				fmt.Fprintf(c.OutOrStdout(), "%s is down\n", lab)
			}
		}
		if *asJSON {
			errs = append(errs, printJSON(c.OutOrStdout(), map[string][]string{"down": down}))
		}
		return errors.Join(errs...)
	}
	return c
}

// dial finds a lab, or says which there are.
func dial(ctx context.Context, lab string) (*supervisor.Client, error) {
	client, err := supervisor.Dial(ctx, lab)
	if errors.Is(err, supervisor.ErrNotFound) {
		var names []string
		listing, cancel := context.WithTimeout(ctx, time.Second) // one that does not answer has a name all the same
		defer cancel()
		entries, _ := supervisor.List(listing) // to be told of none is no further error
		for _, e := range entries {
			names = append(names, e.Name)
		}
		err = fmt.Errorf("%w%s", err, topology.OrAny(lab, names))
	}
	return client, err
}

func takeDown(ctx context.Context, lab string) error {
	client, err := dial(ctx, lab)
	if err != nil {
		return err
	}
	return client.Down(ctx)
}
