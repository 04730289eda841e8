package app

import (
	"errors"

	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/console"
	"github.com/hookline/hookline/sink"
)

// addConsole makes the pages and the REST interface. Where there is no admin
// address there is nothing to serve them at, which is an error only for who asks
// for nothing else.
func (a *App) addConsole() error {
	if a.admin == nil {
		if len(a.roles) == 1 {
			return errors.New("starting the console: HOOKLINE_ADMIN_ADDR is off (set an address)")
		}
		return nil
	}
	r, err := sink.OpenReader(a.cfg.Sink)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, func() { r.Close() })
	log := a.log.With("part", "console")
	service := api.NewService(api.Deps{Log: r, Snapshot: a.registry.Snapshot})
	pages, err := console.New(console.Deps{Service: service, Guard: a.cfg.Admin.Guard(), Log: log, Version: a.version})
	if err != nil {
		return err
	}
	a.console = pages
	a.ready = append(a.ready, func() admin.Part { return admin.Part{Name: "console", Ready: true} })
	return nil
}
