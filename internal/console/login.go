package console

import (
	"net/http"

	"github.com/hookline/hookline/internal/access"
)

// maxForm is the largest form that is read.
const maxForm = 64 << 10

func (c *console) loginPage(w http.ResponseWriter, r *http.Request) {
	c.showLogin(w, r, http.StatusOK, "")
}

func (c *console) showLogin(w http.ResponseWriter, r *http.Request, status int, problem string) {
	c.render(w, r, status, "login", &view{Title: "Log in", Data: &loginPage{
		Next: localPath(r.FormValue("next")), Problem: problem, HasTokens: c.Guard.HasTokens(),
	}})
}

func (c *console) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if c.Guard.Login(w, r, r.FormValue("token")) == access.None {
		c.showLogin(w, r, http.StatusForbidden, "That token is not known here.")
		return
	}
	http.Redirect(w, r, localPath(r.FormValue("next")), http.StatusSeeOther)
}

func (c *console) logout(w http.ResponseWriter, r *http.Request) {
	c.Guard.Logout(w, r)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
