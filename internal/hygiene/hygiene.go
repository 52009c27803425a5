// Package hygiene sees what a lab has left behind.
//
// What Take sees on the whole machine, as far as this user may look: network namespaces (those of processes and threads,
// those held open by a descriptor, those mounted in this mount namespace), processes, cgroup directories whose name
// begins with pqlab, files of that name in the temporary and the runtime directories, and journals. In the network
// namespace of this process: interfaces, addresses, routes, rules, XFRM states and policies, nftables tables. Of this
// process: descriptors, goroutines, threads.
//
// It does not see a namespace that only a socket or a mount in another mount namespace keeps alive.
//
// Diff compares all of that. Settled leaves out what other owners do on the same machine meanwhile, so that suites can
// run beside each other:
//
//   - a namespace counts if a process of the owner has it, or if its name under a mount point begins with pqlab;
//   - a process counts if it is the owner's; a zombie only if its parent is too, for it is the parent's to reap;
//   - a cgroup, file or journal counts if the number in its name is the owner's process, a process of the owner's, or no
//     process at all; one without a number counts if it is in a temporary directory that nobody else writes to;
//   - what is in this process's network namespace counts: pqlab makes nothing there;
//   - what this process has counts, more than 16 threads above the former number apart: Go keeps idle ones.
package hygiene

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// kind is a sort of thing that can be left over.
type kind string

const (
	namespaces kind = "network namespace"
	processes  kind = "process"
	cgroups    kind = "cgroup"
	files      kind = "file"
	network    kind = "network" // what is configured in the network namespace of this process
	own        kind = "own"     // descriptors and goroutines of this process
)

// item is one thing that was seen. Two of the same kind and name are the same.
type item struct {
	kind kind
	name string
}

// detail says how an item was seen.
type detail struct {
	count   int    // of what configures the network and of what is this process's; else 1
	holders []int  // processes
	where   string // for people
	pid     int    // in the name of a cgroup or file; 0: none
	ours    bool   // of namespaces and files: ours whoever holds it
}

// idleThreads is how many threads Go may have kept in reserve since the first snapshot.
const idleThreads = 16

// Snapshot is what Take saw.
type Snapshot struct {
	// Unseen says what this process was not allowed to look at.
	Unseen []string

	items     map[item]detail
	processes map[int]process
	threads   int
}

// Take looks at everything.
func Take() (Snapshot, error) {
	s := Snapshot{items: map[item]detail{}}
	err := errors.Join(s.takeOwn(), s.takeProcesses(), s.takeMounts(), s.takeFiles(), s.takeNetwork())
	return s, err
}

func (s *Snapshot) add(k kind, name string, d detail) {
	it := item{k, name}
	old := s.items[it]
	d.count = 1
	if k == network || k == own { // of the others a second sight is of the same thing
		d.count += old.count
	}
	d.holders = append(old.holders, d.holders...)
	if old.where != "" {
		d.where = old.where
	}
	d.ours = d.ours || old.ours
	s.items[it] = d
}

// Diff names every difference on the machine and in this process, whoever made it.
func Diff(before, after Snapshot) []string {
	return texts(compare(before, after, func(item, detail, bool) bool { return true }))
}

// difference is one that is the same in another look if its key is; the text may have changed.
type difference struct{ key, text string }

func texts(differences []difference) []string {
	var out []string
	for _, d := range differences {
		out = append(out, d.text)
	}
	slices.Sort(out)
	return out
}

// compare returns the differences that count.
func compare(before, after Snapshot, counts func(it item, d detail, gone bool) bool) []difference {
	var out []difference
	for it, d := range after.items {
		if more := d.count - before.items[it].count; more > 0 && counts(it, d, false) {
			out = append(out, difference{"left" + string(it.kind) + it.name, sentence("left", it, d, more)})
		}
	}
	for it, d := range before.items {
		if fewer := d.count - after.items[it].count; fewer > 0 && it.kind != own && counts(it, d, true) {
			out = append(out, difference{"gone" + string(it.kind) + it.name, sentence("gone", it, d, fewer)})
		}
	}
	if more := after.threads - before.threads; more > idleThreads {
		out = append(out, difference{"threads", fmt.Sprintf("left: %d threads more, %d in all", more, after.threads)})
	}
	return out
}

func sentence(verb string, it item, d detail, n int) string {
	text := verb + ": "
	if it.kind != network && it.kind != own {
		text += string(it.kind) + " "
	}
	text += it.name
	if d.where != "" {
		text += " (" + d.where + ")"
	}
	if n > 1 {
		text += fmt.Sprintf(" ×%d", n)
	}
	return text
}

// Settled waits until nothing of the owner's differs from before, and returns nothing; the kernel frees namespaces a
// while after their last user has gone. When ctx ends first it looks once more and returns the differences that lasted:
// those seen in both of the last two looks, of which there always are two.
func Settled(ctx context.Context, before Snapshot, owner Owner) ([]string, error) {
	var last []difference
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		after, err := Take()
		if err != nil {
			return nil, err
		}
		now := compare(before, after, func(it item, d detail, gone bool) bool {
			if gone {
				return owner.misses(it)
			}
			return owner.answersFor(after, it, d)
		})
		if len(now) == 0 {
			return nil, nil
		}
		if last != nil && ctx.Err() != nil {
			return texts(slices.DeleteFunc(now, func(d difference) bool {
				return !slices.ContainsFunc(last, func(l difference) bool { return l.key == d.key })
			})), nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop() // and look a last time
		}
		last = now
	}
}

// misses tells whether the loss of an item is a difference: of what is in this process's network namespace it is, and of
// the rest others dispose.
func (o Owner) misses(it item) bool { return it.kind == network }

// answersFor tells whether the owner has left the item.
func (o Owner) answersFor(s Snapshot, it item, d detail) bool {
	switch it.kind {
	case network, own:
		return true
	case namespaces:
		return d.ours || slices.ContainsFunc(d.holders, func(pid int) bool { return o.owns(s, pid) })
	case processes:
		p := s.processes[d.pid]
		if p.zombie {
			return o.owns(s, p.parent)
		}
		return d.pid != o.PID && o.owns(s, d.pid)
	case cgroups, files:
		if d.pid == 0 {
			return d.ours
		}
		p, lives := s.processes[d.pid]
		return !lives || p.zombie || o.owns(s, d.pid)
	}
	return true
}
