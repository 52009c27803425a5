package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pqlab/internal/rootless"
	"pqlab/lab"
	"pqlab/links"
	"pqlab/report"
	"pqlab/run"
)

// shortestFlow is the shortest whose figures mean something.
const shortestFlow = 10 * time.Millisecond

// labFlags say how a lab is made.
type labFlags struct {
	shaper choice
	port   choice
	fates  links.Fates
}

func addLabFlags(c *cobra.Command) *labFlags {
	f := &labFlags{
		shaper: choice{value: "auto", known: links.Names()},
		port:   choice{value: "auto", known: []string{"auto", "tun", "packet"}},
	}
	c.Flags().Var(&f.shaper, "shaper", "what gives links their rate, delay and losses: "+strings.Join(links.Names(), ", "))
	c.Flags().Var(&f.port, "gateway-port", "how the user-space gateway meets the kernel: auto, tun or packet")
	return f
}

// addFatesFlags is for labs whose links record and replay.
func addFatesFlags(c *cobra.Command, f *labFlags) {
	c.Flags().StringVar(&f.fates.Record, "record-fates", "", "write to this directory, a file LINK.fates of each link that has a shape, what befalls its packets")
	c.Flags().StringVar(&f.fates.Replay, "replay-fates", "", "have the same befall the packets that --record-fates wrote to this directory")
}

func (f *labFlags) options() lab.Options {
	return lab.Options{Shaper: f.shaper.value, Port: f.port.value, Fates: f.fates, Log: os.Stderr}
}

func newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run TOPOLOGY",
		Short: "Make a lab, key its tunnels, send traffic, rekey, measure, take it down",
		Long: `run makes a lab of TOPOLOGY (a built-in name or a YAML file), keys its tunnels by the
post-quantum exchange, sends its traffic one flow after the other, lets the tunnels rekey, measures all of it,
and takes the lab down again.`,
		Example: "  pqlab run east-west --duration 5s --rekey-blocks 2000000\n  pqlab run pair --suite dilithium5+kyber1024 --report out/",
		Args:    args(cobra.ExactArgs(1)),
	}
	asJSON := jsonFlag(c)
	tunnels, labs := addTunnelFlags(c), addLabFlags(c)
	addFatesFlags(c, labs)
	duration := c.Flags().Duration("duration", run.DefaultDuration, "of each flow; the default where the topology gives it none (four times as long if an emulated processor is to reach a limit of volume)")
	dir := c.Flags().String("report", "", "write result.json, junit.xml and index.html to this directory")
	captures := c.Flags().String("capture", "", "write a pcapng file of each link to this directory")
	strict := c.Flags().Bool("strict", false, "fail (exit 1) where this machine was too busy to keep the schedule of a wire, which otherwise is a warning, or where a link cannot have its rate here")
	secrets := addSecretFlags(c)
	c.RunE = func(c *cobra.Command, a []string) error {
		if *captures == "" {
			if err := secrets.need("--capture"); err != nil {
				return err
			}
		}
		if *duration < shortestFlow || *duration > 24*time.Hour {
			return usageError{fmt.Errorf("--duration %v: want %v to 24h", *duration, shortestFlow)}
		}
		for _, d := range []struct{ flag, dir string }{{"report", *dir}, {"capture", *captures}} { // before the run, not after it
			if d.dir == "" {
				continue
			}
			if err := report.CheckDir(d.dir); err != nil {
				return usageError{fmt.Errorf("--%s: %w", d.flag, err)}
			}
		}
		p, err := tunnels.plan(a[0])
		if err != nil {
			return err
		}
		if c.Flags().Changed("duration") { // what is asked for now comes before what the topology says
			for i := range p.Traffic {
				p.Traffic[i].Duration = 0
			}
		} else {
			*duration = 0 // the run knows what suits the plan
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		shown := newProgress(*asJSON)
		result, err := run.Do(c.Context(), p, run.Options{
			Lab: labs.options(), Duration: *duration, Capture: *captures, TLSSecrets: secrets.tls, ExportKeys: secrets.keys, Strict: *strict, Version: version,
			Command: append([]string{"pqlab"}, os.Args[1:]...), Progress: shown.show,
		})
		shown.done()
		if err != nil {
			return err
		}
		page := ""
		var unwritten error // which costs the report and not the result
		if *dir != "" {
			if unwritten = result.WriteDir(*dir); unwritten == nil {
				page = filepath.Join(*dir, "index.html")
			}
		}
		if *asJSON {
			err = result.WriteJSON(c.OutOrStdout())
		} else {
			err = result.WriteText(c.OutOrStdout(), page)
		}
		if err = errors.Join(unwritten, err); err != nil {
			return err
		}
		if result.Verdict() != report.Pass {
			return exitError(exitFailed)
		}
		return nil
	}
	return c
}
