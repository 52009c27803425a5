package links

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Shaper makes links that have the rate, delay, jitter and loss of the topology. Those that exist are chosen by Choose.
type Shaper interface {
	// Name is what --shaper calls it.
	Name() string
	// Lacks says what link needs that this shaper cannot give it here; nil when it can be made.
	Lacks(link topology.PlannedLink) *LinkNeeds
	// connect makes a link that Lacks nothing. On error it leaves nothing.
	connect(link topology.PlannedLink, a, b *netns.Namespace) (*Link, error)
}

// backends lists the shapers that exist, the one that auto prefers first. A new one joins with a file and a line.
func backends(k kernel) []Shaper {
	return []Shaper{tbf{k}}
}

// Names lists what Choose accepts.
func Names() []string {
	names := []string{"auto"}
	for _, s := range backends(kernel{}) {
		names = append(names, s.Name())
	}
	return append(names, none{}.Name())
}

// ErrUnknownShaper is wrapped by Choose's error for a name that is not in Names.
var ErrUnknownShaper = errors.New("unknown shaper")

// Choose gives the shaper that want names; "" means auto, which takes for each link the first shaper that can do it.
// It makes no link, but tries what the kernel has, in a namespace of its own. If any link needs what the shaper cannot
// give, the error is an *UnsupportedError that names every such link.
func Choose(links []topology.PlannedLink, want string) (Shaper, error) {
	return choose(links, want, probed())
}

func choose(links []topology.PlannedLink, want string, k kernel) (Shaper, error) {
	var shaper Shaper
	switch all := backends(k); want {
	case "", "auto":
		shaper = auto(all)
	case none{}.Name():
		shaper = none{}
	default:
		i := slices.IndexFunc(all, func(s Shaper) bool { return s.Name() == want })
		if i < 0 {
			return nil, fmt.Errorf("%w %q: there are %s", ErrUnknownShaper, want, strings.Join(Names(), ", "))
		}
		shaper = all[i]
	}
	var lacking []LinkNeeds
	for _, l := range links {
		if lacks := shaper.Lacks(l); lacks != nil {
			lacking = append(lacking, *lacks)
		}
	}
	if lacking != nil {
		return nil, &UnsupportedError{Links: lacking}
	}
	return shaper, nil
}

// LinkNeeds is one link that cannot be made as the topology wants it.
type LinkNeeds struct {
	Link    string
	Needs   []string // what it is that cannot be had: "delay 2ms"
	Missing []string // why: "this kernel has no netem (CONFIG_NET_SCH_NETEM)"
}

// UnsupportedError says which links need what cannot be had here. Nothing was made.
type UnsupportedError struct {
	Links []LinkNeeds
}

// Error has a line for each link.
func (e *UnsupportedError) Error() string {
	lines := make([]string, len(e.Links))
	for i, l := range e.Links {
		lines[i] = fmt.Sprintf("link %s: needs %s; %s; --shaper=none runs it unshaped",
			l.Link, strings.Join(l.Needs, " and "), strings.Join(l.Missing, "; "))
	}
	return strings.Join(lines, "\n")
}

// Is makes it errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// needsRate and needsDelay say what an unshaped pair of interfaces does not give link.
func needsRate(link topology.PlannedLink) []string {
	if link.Rate == 0 {
		return nil
	}
	return []string{fmt.Sprintf("rate %v", link.Rate)}
}

func needsDelay(link topology.PlannedLink) []string {
	var needs []string
	if link.Delay > 0 {
		needs = append(needs, "delay "+link.Delay.String())
	}
	if link.Jitter > 0 {
		needs = append(needs, "jitter "+link.Jitter.String())
	}
	if link.Loss > 0 {
		needs = append(needs, "loss "+strconv.FormatFloat(link.Loss*100, 'g', 6, 64)+"%")
	}
	return needs
}

// auto takes for each link the first shaper that lacks nothing.
type auto []Shaper

func (auto) Name() string { return "auto" }

func (a auto) Lacks(link topology.PlannedLink) *LinkNeeds {
	var first *LinkNeeds
	for _, s := range a {
		lacks := s.Lacks(link)
		if lacks == nil {
			return nil
		}
		if first == nil {
			first = lacks
		}
	}
	return first
}

func (a auto) connect(link topology.PlannedLink, from, to *netns.Namespace) (*Link, error) {
	for _, s := range a {
		if s.Lacks(link) == nil {
			return s.connect(link, from, to)
		}
	}
	return nil, &UnsupportedError{Links: []LinkNeeds{*a.Lacks(link)}}
}

// none makes every link a bare pair of interfaces and records what was asked of it.
type none struct{}

func (none) Name() string { return "none" }

func (none) Lacks(topology.PlannedLink) *LinkNeeds { return nil }

func (none) connect(link topology.PlannedLink, a, b *netns.Namespace) (*Link, error) {
	made, err := newVeth(link, a, b, nil)
	if err != nil {
		return nil, err
	}
	made.Ignored = append(needsRate(link), needsDelay(link)...)
	return made, nil
}
