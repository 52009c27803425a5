package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"pqlab/internal/journal"
)

// repair undoes what labs left whose owners and sweepers were both killed. It speaks only when it found something that
// it could not undo: that is another lab's trouble and no reason not to make this one.
func (l *Lab) repair() {
	for _, dir := range journal.Dirs() {
		_, err := journal.Repair(dir, journal.Undo{"cgroup": journal.RemoveCgroup})
		if errors.Is(err, fs.ErrPermission) {
			continue // another user's, who repairs it
		}
		if err != nil {
			l.warn(fmt.Sprintf("repairing what an earlier run left: %v", err))
		}
	}
}

// openJournal makes the journal for what outlives this process, where the plan needs any of that.
func (l *Lab) openJournal() error {
	if !l.capped() {
		return nil
	}
	dir, err := journal.Dir()
	if err != nil {
		return err
	}
	if l.journal, err = journal.Open(dir); err != nil {
		return err
	}
	l.onDown("journal", func(context.Context) error { return l.journal.Close() })
	return nil
}

// capped says whether a node has a device profile, and so wants a cgroup.
func (l *Lab) capped() bool {
	for _, n := range l.Plan.Nodes {
		if n.Profile != "" {
			return true
		}
	}
	return false
}
