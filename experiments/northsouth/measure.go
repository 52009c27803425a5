package northsouth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pqlab/experiments"
	"pqlab/lab"
	"pqlab/topology"
)

// radio of a client that says nothing of its own: two antennas and 80 MHz, as the paper's "1 Gbit/s-capable" one has at least.
const radio = "jetson-ac-2x2-80"

// udpRate is what UDP offers: more than the air carries.
const udpRate = 650 * topology.Mbit

// Measure runs the experiment: for each seed each setting, one lab after the other.
func Measure(ctx context.Context, o Options) (Result, error) {
	out := Result{About: experiments.Begin(Name, o.Version, o.Command, o.Seed), Duration: o.Duration.Seconds()}
	m := &measurement{Options: o, result: &out, schedule: out.Schedule}
	for _, d := range o.Distances { // of which a plan takes 0 for one that nobody gave
		if err := topology.CheckDistance(d); err != nil {
			return out, topology.Errors{{Kind: topology.BadValue, Element: "distances", Message: fmt.Sprintf("distance %v m %v", d, err)}}
		}
	}
	all := o.settings()
	for _, s := range all {
		plan, err := s.plan(o.Seed)
		if err == nil {
			err = experiments.Shapeable(plan, o.Lab.Shaper)
		}
		if err != nil {
			return out, err
		}
	}
	builtin, err := all[0].plan(o.Seed)
	if err != nil {
		return out, err
	}
	out.Radio = builtin.Links[slices.IndexFunc(builtin.Links, isAir)].WiFi.String()
	steps := o.Repeats * len(all)
	tell := func(n int, what string) {
		if o.Progress != nil {
			o.Progress(float64(n)/float64(steps), what)
		}
	}
	out.Measured = make([]Measured, len(all))
	for i, s := range all {
		out.Measured[i].Setting = s
		if err := out.Measured[i].model(o.Seed); err != nil {
			return out, err
		}
	}
	for i := range o.Repeats {
		for j, s := range all {
			tell(i*len(all)+j, fmt.Sprintf("%v, seed %d", s, o.Seed+uint64(i)))
			r, err := m.run(ctx, s, o.Seed+uint64(i))
			if err != nil {
				return out, fmt.Errorf("%v: %w", s, err)
			}
			out.Measured[j].Runs = append(out.Measured[j].Runs, r)
		}
	}
	if !m.carried {
		return out, fmt.Errorf("nothing could be measured: %v: %w", all[0], m.failed)
	}
	out.Seconds = time.Since(out.Started).Seconds()
	out.Timing(m.schedule)
	out.Evaluate()
	return out, nil
}

type measurement struct {
	Options
	result   *Result
	schedule experiments.Schedule
	carried  bool  // something, in some run
	failed   error // the first
}

func isAir(l topology.PlannedLink) bool { return l.WiFi != nil }

// plan is the built-in lab as the setting has it.
func (s Setting) plan(seed uint64) (*topology.Plan, error) {
	t, err := topology.Builtin(Name)
	if err != nil {
		return nil, err
	}
	t.Seed, t.Traffic = seed, nil
	i := slices.IndexFunc(t.Links, func(l topology.Link) bool { return l.Kind == topology.WiFi })
	air := &t.Links[i]
	station := topology.Station{Profile: radio}
	if air.WiFi != nil {
		station = *air.WiFi
	}
	air.Rate = 0 // which comes of the air
	if s.station != nil {
		s.station(&station)
	}
	air.WiFi = &station
	client, tunnel := t.Nodes[0], t.Tunnels[0]
	for n := 2; n <= s.stations; n++ {
		other, link, end := client, *air, tunnel
		other.Name = fmt.Sprintf("%s%d", client.Name, n)
		link.Name = ""
		if link.A.Node == client.Name {
			link.A.Node = other.Name
		} else {
			link.B.Node = other.Name
		}
		end.Name, end.A.Node = fmt.Sprintf("%s%d", tunnel.Name, n), other.Name
		t.Nodes, t.Links, t.Tunnels = append(t.Nodes, other), append(t.Links, link), append(t.Tunnels, end)
	}
	if s.mtu > 0 {
		for i, l := range t.Links {
			if l.Kind != topology.PCIe {
				t.Links[i].MTU = s.mtu
			}
		}
	}
	for _, tunnel := range t.Tunnels {
		f := topology.Flow{Name: tunnel.A.Node, Proto: s.Proto, From: tunnel.A.Node, To: "h1"}
		if s.Down {
			f.From, f.To = f.To, f.From
		}
		if s.Proto == "udp" {
			f.Rate = udpRate
		}
		t.Traffic = append(t.Traffic, f)
	}
	return t.Plan()
}

// run makes the lab, keys its tunnels and lets all its flows go at once.
func (m *measurement) run(ctx context.Context, s Setting, seed uint64) (out Run, err error) {
	out.Seed = seed
	plan, err := s.plan(seed)
	if err != nil {
		return out, err
	}
	l, err := lab.Up(ctx, plan, m.Lab)
	if err != nil {
		return out, err
	}
	ctx, release := l.Guard(ctx)
	defer release()
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	m.result.Shaper = l.ShapedBy()
	defer func() { m.schedule.Note(fmt.Sprintf("%v, seed %d", s, seed), l) }()
	out.Stations = make([]float64, len(plan.Traffic))
	for _, t := range plan.Tunnels {
		if _, err := l.Tunnel(t.Name).Establish(ctx); err != nil {
			return out, m.lacks(ctx, &out, "no tunnel", err)
		}
	}
	before, err := readCores()
	if err != nil {
		return out, err
	}
	var flows sync.WaitGroup
	failed := make([]error, len(plan.Traffic))
	for i, f := range plan.Traffic {
		flows.Go(func() {
			r, err := l.Send(ctx, f, m.Duration)
			if failed[i] = err; err == nil { // else it is what had arrived when it was given up
				out.Stations[i] = r.BitsPerSecond
			}
		})
	}
	flows.Wait()
	if err := errors.Join(failed...); err != nil {
		if err := m.lacks(ctx, &out, "no traffic", err); err != nil {
			return out, err
		}
	}
	after, err := readCores()
	if err != nil {
		return out, err
	}
	out.Idle = after.idleSince(before)
	for _, bits := range out.Stations {
		out.BitsPerSecond += bits
	}
	m.carried = m.carried || out.BitsPerSecond > 0
	for _, p := range plan.Links {
		if isAir(p) {
			for _, w := range l.Link(p.Name).State().Wire {
				out.LateP99Us = max(out.LateP99Us, float64(w.Lateness.P99)/float64(time.Microsecond))
			}
		}
	}
	state, err := l.Tunnel(plan.Tunnels[0].Name).State(ctx, plan.Tunnels[0].A.Node)
	m.result.Dataplane = state.Dataplane
	return out, err
}

// lacks takes into a run that something did not come about in its lab, as over an air that carries nothing. It is an error
// where the lab itself is at an end, or this machine cannot.
func (m *measurement) lacks(ctx context.Context, r *Run, what string, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if m.failed == nil {
		m.failed = err
	}
	r.Why = what + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	return nil
}
