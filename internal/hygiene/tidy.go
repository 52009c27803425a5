package hygiene

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// tidyTimeout bounds how long the kernel may take to free what was given up.
const tidyTimeout = 2 * time.Minute

// Tidy calls run, a package's tests, and returns its exit status, or 1 if it left anything on the machine or in this
// process, which it names on standard error.
func Tidy(run func() int) int {
	owner := Self()
	before, err := Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := run()
	if err := leftSince(before, owner); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// T is what Check needs of a testing.TB.
type T interface {
	Helper()
	Error(...any)
	Fatal(...any)
	Cleanup(func())
}

// Check fails a test at its end if the owner has left anything. It looks at the whole process, so such tests are not
// parallel.
func (o Owner) Check(t T) {
	t.Helper()
	before, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Helper()
		if err := leftSince(before, o); err != nil {
			t.Error(err)
		}
	})
}

func leftSince(before Snapshot, owner Owner) error {
	ctx, cancel := context.WithTimeout(context.Background(), tidyTimeout)
	defer cancel()
	left, err := Settled(ctx, before, owner)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	return err
}
