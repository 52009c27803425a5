package suites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"pqlab/internal/vm"
)

// Guest is the Runner that starts a guest for each claim, made as c says. c.Args, c.Dir and the streams are its own.
func Guest(c vm.Config) Runner {
	return func(ctx context.Context, dir string, args []string, output io.Writer) (err error) {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		copied := make(chan error, 1)
		go func() {
			_, err := io.Copy(output, r)
			copied <- err
		}()
		c := c
		c.Args, c.Dir, c.Stdin, c.Stdout, c.Stderr = append([]string{self}, args...), dir, null, w, w
		status, err := vm.Run(ctx, c)
		w.Close()
		err = errors.Join(err, <-copied)
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		return err
	}
}
