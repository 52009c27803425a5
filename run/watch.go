package run

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pqlab/capture"
	"pqlab/internal/netns"
	"pqlab/ipsec/keying"
	"pqlab/report"
	"pqlab/topology"
)

// watcher counts what passes a link that carries tunnels. The kernel takes filters of a limited length, so a link of many
// tunnels has several, each for some of the subnets.
type watcher struct {
	link  string
	parts []*capture.Watcher
}

// add begins to watch for plaintext between the pairs.
func (w *watcher) add(ns *netns.Namespace, iface string, want capture.Wanted) error {
	part, err := capture.Watch(ns, iface, want)
	var long *capture.TooLongError
	tooLong := errors.As(err, &long) || errors.Is(err, unix.ENOMEM) // the latter is net.core.optmem_max
	if n := len(want.Pairs); tooLong && n > 1 {
		first, second := want, want
		first.Pairs, second.Pairs = want.Pairs[:n/2], want.Pairs[n/2:]
		return errors.Join(w.add(ns, iface, first), w.add(ns, iface, second))
	}
	if err == nil {
		w.parts = append(w.parts, part)
	}
	return err
}

// stop ends the watch. Every part sees all packets, and calls Other what is plaintext to another part.
func (w *watcher) stop() (capture.Counts, error) {
	var all capture.Counts
	var errs []error
	for i, part := range w.parts {
		c, err := part.Stop()
		errs = append(errs, err)
		if i == 0 {
			all = c
			continue
		}
		all.Plaintext += c.Plaintext
		all.Other -= min(all.Other, c.Plaintext)
		all.Leaks = append(all.Leaks, c.Leaks...)
	}
	return all, errors.Join(errs...)
}

// watch begins to count on every link that only ESP may pass. What it began is stopped by stopWatches.
func (r *runner) watch() error {
	for _, l := range r.plan.Links {
		var want capture.Wanted
		for _, t := range r.plan.Tunnels {
			for _, name := range t.Links {
				if name == l.Name {
					want.Pairs = append(want.Pairs, pairs(t)...)
					want.Exchange = append(want.Exchange,
						netip.AddrPortFrom(t.OuterA, keying.Port), netip.AddrPortFrom(t.OuterB, keying.Port))
				}
			}
		}
		if len(want.Pairs) == 0 {
			continue
		}
		ns, iface := r.end(l)
		w := &watcher{link: l.Name}
		r.watchers = append(r.watchers, w)
		if err := w.add(ns, iface, want); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	return nil
}

// end is where a link is looked at: both ends see the same.
func (r *runner) end(l topology.PlannedLink) (*netns.Namespace, string) {
	return r.lab.Node(l.A.Node).Namespace(), l.A.Interface
}

func pairs(t topology.PlannedTunnel) []capture.Pair {
	var all []capture.Pair
	for _, a := range t.A.Subnets {
		for _, b := range t.B.Subnets {
			if a.Addr().Is4() == b.Addr().Is4() {
				all = append(all, capture.Pair{A: a, B: b})
			}
		}
	}
	return all
}

// stopWatches ends the watches and captures. A second call does nothing.
func (r *runner) stopWatches() error {
	watchers, recordings := r.watchers, r.recordings
	r.watchers, r.recordings = nil, nil
	var errs []error
	for _, w := range watchers {
		c, err := w.stop()
		errs = append(errs, err)
		r.result.Watches = append(r.result.Watches, report.Watch{
			Link: w.link, ESP: c.ESP, ESPinUDP: c.ESPinUDP, Exchange: c.Exchange, Plaintext: c.Plaintext, Other: c.Other,
		})
		detail := fmt.Sprintf("%d packets of ESP, %d of plaintext", c.ESP+c.ESPinUDP, c.Plaintext)
		for _, leak := range c.Leaks {
			detail += "; " + leak.String()
		}
		carried := !r.used(w.link) || c.ESP+c.ESPinUDP > 0
		r.check(fmt.Sprintf("link %s carries only ESP", w.link), c.Plaintext == 0 && carried, detail)
	}
	r.stopRecordings(recordings)
	return errors.Join(errs...)
}

// used says whether a flow goes through a tunnel that passes the link.
func (r *runner) used(link string) bool {
	for _, t := range r.plan.Tunnels {
		if !slices.Contains(t.Links, link) {
			continue
		}
		for _, f := range r.plan.Traffic {
			if slices.Contains(f.Tunnels, t.Name) {
				return true
			}
		}
	}
	return false
}
