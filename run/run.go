// Package run takes a lab through its paces and measures it: up, exchange, tunnel, traffic, rekeys, down. Every number
// of its result was measured in that run.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pqlab/capture"
	"pqlab/internal/vm/guest"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/report"
	"pqlab/topology"
	"pqlab/traffic"
)

// DefaultDuration is how long each flow of a run lasts, but for those where an emulated processor is to reach a limit of
// volume: it is many times slower, and they last four times as long.
const DefaultDuration = 5 * time.Second

// Options of a run.
type Options struct {
	Lab      lab.Options
	Duration time.Duration // of each flow that has none of its own; 0 means DefaultDuration
	Capture  string        // directory for a pcapng file of each link; empty: none
	// TLSSecrets puts into the captures what opens the TLS sessions of the exchanges. It does not give the keys of SAs.
	TLSSecrets bool
	ExportKeys bool         // writes the keys of the SAs beside the captures
	Strict     bool         // a link that this machine was too busy for fails the run
	Command    []string     // repeats the run
	Version    string       // of pqlab
	Progress   func(string) // told what happens; nil: nobody
}

// Do runs the plan. After an error the lab is down, and there is no result to speak of.
func Do(ctx context.Context, plan *topology.Plan, o Options) (report.Result, error) {
	if o.Duration <= 0 {
		o.Duration = duration(plan, guest.Emulated())
	}
	o.Lab.Reach = o.Strict
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Capture != "" {
		if err := report.CheckDir(o.Capture); err != nil {
			return report.Result{}, fmt.Errorf("captures: %w", err)
		}
	}
	r := &runner{
		plan: plan, options: o, started: traffic.Now(), ledger: newLedger(plan),
		result: report.Result{
			Topology: plan.Name, Seed: plan.Seed, Kernel: report.Kernel(), Version: o.Version, Command: o.Command,
			Started: time.Now(), Machine: report.ThisMachine(), CPUSeconds: map[string]float64{}, Warnings: slices.Clone(plan.Notes), Picture: string(plan.SVG()),
		},
	}
	err := r.run(ctx)
	r.result.Duration = r.since(traffic.Now())
	return r.result, err
}

// duration of flows of which nobody says it.
func duration(plan *topology.Plan, emulated bool) time.Duration {
	if emulated && slices.ContainsFunc(plan.Tunnels, func(t topology.PlannedTunnel) bool { return volume(t.Rekey) }) {
		return 4 * DefaultDuration
	}
	return DefaultDuration
}

// volume says whether somebody set a limit of volume, which is to see keys replaced.
func volume(l topology.Limits) bool {
	return l.Blocks > 0 && l.Blocks != topology.DefaultRekeyBlocks || l.Bytes > 0 || l.Packets > 0
}

type runner struct {
	plan    *topology.Plan
	options Options
	started traffic.Instant
	ledger  *ledger
	lab     *lab.Lab
	result  report.Result

	unkeyed     []string         // tunnels whose exchange the lab's network did not carry
	places      map[place]uint64 // what they had dropped when the lab was up
	watchers    []*watcher
	recordings  []recording
	table       *capture.Table // nil unless keys are exported
	stopExports context.CancelFunc
}

// since is an instant in the result's time.
func (r *runner) since(t traffic.Instant) float64 {
	return float64(t.Sub(r.started)) / float64(time.Millisecond)
}

func (r *runner) run(asked context.Context) (err error) {
	r.options.Progress(making(r.plan))
	began := time.Now()
	if r.lab, err = lab.Up(asked, r.plan, r.options.Lab); err != nil {
		return err
	}
	r.result.UpMs, r.result.VerifyMs = ms(time.Since(began)-r.lab.VerifyTime), ms(r.lab.VerifyTime)
	r.judgeLinks(r.lab.Verified)
	r.judgeRates(r.lab.Unreached)
	ctx, release := r.lab.Guard(asked)
	defer func() {
		r.options.Progress("taking the lab down")
		interrupted := asked.Err() != nil
		errDown := r.lab.Down(context.WithoutCancel(ctx))
		if failed := r.lab.Err(); failed != nil && err != nil && !interrupted {
			err = failed // all else is its consequence
		}
		err = errors.Join(err, errDown)
		release()
	}()
	r.result.Shaper = r.lab.ShapedBy()
	r.result.Warnings = append(r.result.Warnings, r.lab.Warnings...)

	watching, stop := context.WithCancel(ctx)
	defer stop()
	if err := r.lab.Events(watching, r.ledger.note); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stopWatches()) }()
	if err := errors.Join(r.watch(), r.watchPlaces()); err != nil {
		return err
	}
	if r.options.Capture != "" {
		if err := r.capture(ctx, r.options.Capture); err != nil {
			return err
		}
	}
	for _, t := range r.plan.Tunnels {
		if err := r.establish(ctx, t); err != nil {
			return err
		}
	}
	for _, f := range r.plan.Traffic {
		if err := r.send(ctx, f); err != nil {
			return err
		}
	}
	r.judgeSchedule(r.driven(), r.kernels())
	r.options.Progress("counting")
	if err := r.count(ctx); err != nil {
		return err
	}
	r.judgeFates()
	return r.judgePlaces()
}

func (r *runner) establish(ctx context.Context, t topology.PlannedTunnel) error {
	r.options.Progress(fmt.Sprintf("tunnel %s: exchanging keys, %s", t.Name, cmp.Or(t.Suite, t.Keying)))
	name := fmt.Sprintf("tunnel %s is keyed", t.Name)
	began := time.Now()
	initiator, failed := r.lab.Tunnel(t.Name).Establish(ctx)
	took := ms(time.Since(began))
	if failed != nil && !r.notCarried(ctx, failed) {
		return failed
	}
	state, err := r.lab.Tunnel(t.Name).State(ctx, t.A.Node)
	if err != nil {
		return err
	}
	r.result.Dataplane = state.Dataplane
	tunnel := report.Tunnel{
		Name: t.Name, A: t.A.Node, B: t.B.Node, Keying: state.Keying, Suite: t.Suite, Combiner: t.Combiner, Identity: t.Identity,
		Encapsulation: t.Encapsulation, Dataplane: state.Dataplane,
	}
	if failed != nil {
		r.check(name, false, fmt.Sprintf("%v; on its way: %s", failed, r.waysText(t.Links)))
		r.unkeyed = append(r.unkeyed, t.Name)
		r.result.Tunnels = append(r.result.Tunnels, tunnel)
		return nil
	}
	responder, err := r.ledger.established(ctx, t.Name, t.B.Node)
	if err != nil {
		return err
	}
	tunnel.Suite, tunnel.Combiner, tunnel.Exchange = initiator.Suite, initiator.Combiner, exchangeOf(initiator, responder, took)
	r.result.Tunnels = append(r.result.Tunnels, tunnel)
	r.check(name, initiator.Transcript == responder.Transcript && initiator.In == responder.Out && initiator.Out == responder.In,
		fmt.Sprintf("%s, %.1f ms", initiator.Suite, took))
	return nil
}

func (r *runner) send(ctx context.Context, f topology.PlannedFlow) error {
	arrives, began := fmt.Sprintf("%s arrives", f.Name), traffic.Now()
	for _, t := range f.Tunnels {
		if slices.Contains(r.unkeyed, t) {
			why := fmt.Sprintf("was not sent: tunnel %s has no keys", t)
			r.flow(f, began, traffic.Result{}, why)
			r.check(arrives, false, why)
			return nil
		}
	}
	r.options.Progress(fmt.Sprintf("%s from %s to %s", f.Proto, f.From, f.To))
	got, err := r.lab.Send(ctx, f, r.options.Duration)
	if r.notCarried(ctx, err) {
		r.flow(f, began, got, err.Error())
		r.check(arrives, false, fmt.Sprintf("%v; on its way: %s", err, r.waysText(f.Links)))
		return nil
	}
	if err != nil {
		return err
	}
	if got.Bytes == 0 {
		r.flow(f, began, got, "nothing arrived")
		r.check(arrives, false, fmt.Sprintf("nothing did; on its way: %s", r.waysText(f.Links)))
	} else {
		r.flow(f, began, got, "")
		r.check(arrives, true, report.Rate(got.BitsPerSecond))
	}
	if f.Proto == traffic.UDP && !r.lossy() {
		if got.SocketDrops > 0 { // then nobody can tell how many of the lost were lost there
			r.warn(fmt.Sprintf("flow %s: node %s was too busy to take all packets from its socket; loss on the way cannot be told from that", f.Name, f.To))
		} else {
			where := ""
			if got.Lost > 0 {
				if where, err = r.placesText(); err != nil {
					return err
				}
			}
			r.check(fmt.Sprintf("%s loses nothing on the way", f.Name), got.Lost == 0, fmt.Sprintf("%d of %d lost", got.Lost, got.Sent)+where)
		}
	}
	return nil
}

// flow takes a flow into the result that was asked for at an instant, with the reason why it was not delivered, if it was not.
func (r *runner) flow(f topology.PlannedFlow, asked traffic.Instant, got traffic.Result, undelivered string) {
	flow := flowOf(f, r.options.Duration, got, undelivered)
	flow.Start = r.since(cmp.Or(got.Start, asked))
	r.result.Traffic = append(r.result.Traffic, flow)
}

// lossy says whether the lab is meant to lose packets.
func (r *runner) lossy() bool {
	for _, l := range r.plan.Links {
		if l.Loses() {
			return true
		}
	}
	return false
}

// count reads what the tunnels and nodes counted, once all that was sent has arrived.
func (r *runner) count(ctx context.Context) error {
	if err := r.ledger.settle(ctx); ctx.Err() != nil {
		return err
	} else if err != nil {
		r.check("every rekey is counted at both ends", false, err.Error())
	}
	for _, k := range r.ledger.rekeys() {
		r.result.Rekeys = append(r.result.Rekeys, report.Rekey{
			Tunnel: k.tunnel, Trigger: string(k.trigger), At: r.since(k.at), Ms: ms(k.took), Lost: k.lost,
		})
	}
	for _, failure := range r.ledger.failures() {
		r.warn(failure)
	}
	var homeless uint64 // packets for which an end had no SA
	for i, t := range r.plan.Tunnels {
		if err := r.countTunnel(ctx, t, &r.result.Tunnels[i]); err != nil {
			return err
		}
		homeless += r.judgeHardLimit(t.Name, r.result.Tunnels[i].Drops)
	}
	for _, n := range r.plan.Nodes {
		if !n.Services {
			continue
		}
		cpu, err := r.lab.Node(n.Name).CPU(ctx)
		if err != nil {
			return err
		}
		r.result.CPUSeconds[n.Name] = cpu.Seconds()
		state, err := r.lab.Node(n.Name).Agent().TunnelState(ctx, "")
		if err != nil {
			return err
		}
		if !r.provoked()["unknown_spi"] { // else a link may have made of the SPI what no end ever had
			homeless += state.Drops.UnknownSPI
		}
		if err := r.readLog(ctx, n.Name); err != nil {
			return err
		}
	}
	r.judgeRekeys(homeless, r.dropped())
	rose, err := r.lab.XfrmStatistics()
	if err != nil {
		return err
	}
	r.judgeStatistics(rose)
	return nil
}

// readLog takes the log of a node's keying daemon into the result, where it has one.
func (r *runner) readLog(ctx context.Context, node string) error {
	log, err := r.lab.Node(node).Agent().Log(ctx)
	if err == nil && log != "" {
		r.result.Logs = append(r.result.Logs, report.Log{Node: node, Program: "charon", Lines: strings.Split(strings.TrimSpace(log), "\n")})
	}
	return err
}

func (r *runner) warn(text string) { r.result.Warnings = append(r.result.Warnings, text) }

func (r *runner) check(name string, ok bool, detail string) {
	r.result.Checks = append(r.result.Checks, report.Check{Name: name, OK: ok, Detail: detail})
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func saOf(node, direction string, spi uint32, c ipsec.Counters) report.SA {
	return report.SA{Node: node, Direction: direction, SPI: spi, Packets: c.Packets, Bytes: c.Bytes, Blocks: c.Blocks}
}
