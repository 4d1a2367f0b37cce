use crate::cloud::{Cloud, token_of};
use serde_json::{Value, json};

pub async fn on_projects_domains_and_system(c: &Cloud) {
    let project = c.make("project", json!({"name": "p"})).await;
    let user = c.make("user", json!({"name": "u", "password": "secret"})).await;
    let group = c.make("group", json!({"name": "g"})).await;
    let role = c.role("reader").await;
    for target in [
        format!("/projects/{project}"),
        "/domains/default".into(),
        "/system".into(),
    ] {
        for actor in [format!("users/{user}"), format!("groups/{group}")] {
            let roles = format!("{target}/{actor}/roles");
            let one = format!("{roles}/{role}");
            assert_eq!(c.ok(200, "GET", &roles, Value::Null).await["roles"], json!([]));
            c.ok(404, "GET", &one, Value::Null).await;
            c.ok(204, "PUT", &one, Value::Null).await;
            c.ok(204, "PUT", &one, Value::Null).await;
            c.ok(204, "GET", &one, Value::Null).await;
            assert_eq!(c.call(&c.admin, "HEAD", &one, Value::Null).await.status, 204);
            assert_eq!(
                c.ok(200, "GET", &roles, Value::Null).await["roles"][0]["name"],
                "reader"
            );
            c.ok(404, "PUT", &format!("{roles}/nothing"), Value::Null).await;
            c.ok(204, "DELETE", &one, Value::Null).await;
            c.ok(404, "DELETE", &one, Value::Null).await;
        }
    }
    for path in [
        format!("/projects/nothing/users/{user}/roles/{role}"),
        format!("/projects/{project}/users/nobody/roles/{role}"),
        format!("/domains/nowhere/groups/{group}/roles/{role}"),
        format!("/system/users/nobody/roles/{role}"),
    ] {
        c.ok(404, "PUT", &path, Value::Null).await;
    }
    // A role of another domain.
    let domain = c.make("domain", json!({"name": "far"})).await;
    let far = c.make("role", json!({"name": "far", "domain_id": domain})).await;
    c.ok(
        403,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{far}"),
        Value::Null,
    )
    .await;
    // A system reader reads everything and writes nothing.
    c.ok(204, "PUT", &format!("/system/users/{user}/roles/{role}"), Value::Null)
        .await;
    let t = token_of(&c.login("u", "secret", json!({"system": {"all": true}})).await);
    for path in [
        "/users",
        "/projects",
        "/domains",
        "/roles",
        "/groups",
        "/role_assignments",
        "/services",
        &format!("/projects/{project}"),
    ] {
        assert_eq!(c.call(&t, "GET", path, Value::Null).await.status, 200, "{path}");
    }
    for (method, path) in [
        ("DELETE", format!("/projects/{project}")),
        ("PUT", format!("/system/users/{user}/roles/{role}")),
    ] {
        assert_eq!(c.call(&t, method, &path, Value::Null).await.status, 403);
    }
}

pub async fn inherited_and_by_groups(c: &Cloud) {
    let domain = c.make("domain", json!({"name": "d"})).await;
    let top = c.make("project", json!({"name": "top", "domain_id": domain})).await;
    let leaf = c.make("project", json!({"name": "leaf", "parent_id": top})).await;
    let user = c
        .make(
            "user",
            json!({"name": "u", "domain_id": "default", "password": "secret"}),
        )
        .await;
    let member = c.role("member").await;
    let may = async |p: &str| c.login("u", "secret", json!({"project": {"id": p}})).await.status == 201;
    // Below a project, not on it.
    let path = format!("/OS-INHERIT/projects/{top}/users/{user}/roles/{member}/inherited_to_projects");
    c.ok(404, "GET", &path, Value::Null).await;
    c.ok(204, "PUT", &path, Value::Null).await;
    c.ok(204, "GET", &path, Value::Null).await;
    assert!(may(&leaf).await && !may(&top).await);
    let own = c
        .ok(200, "GET", &format!("/projects/{top}/users/{user}/roles"), Value::Null)
        .await;
    assert_eq!(own["roles"], json!([]), "not held there");
    c.ok(204, "DELETE", &path, Value::Null).await;
    assert!(!may(&leaf).await);
    // Below a domain, by a group.
    let group = c.make("group", json!({"name": "g"})).await;
    let path = format!("/OS-INHERIT/domains/{domain}/groups/{group}/roles");
    c.ok(
        204,
        "PUT",
        &format!("{path}/{member}/inherited_to_projects"),
        Value::Null,
    )
    .await;
    assert!(!may(&top).await);
    c.ok(204, "PUT", &format!("/groups/{group}/users/{user}"), Value::Null)
        .await;
    assert!(may(&top).await && may(&leaf).await);
    assert_eq!(
        c.ok(200, "GET", &format!("{path}/inherited_to_projects"), Value::Null)
            .await["roles"][0]["name"],
        "member"
    );
    let t = token_of(&c.login("u", "secret", Value::Null).await);
    let list = c.call(&t, "GET", "/auth/projects", Value::Null).await.json();
    assert_eq!(list["projects"].as_array().unwrap().len(), 2);
    assert_eq!(
        c.call(&t, "GET", "/auth/domains", Value::Null).await.json()["domains"],
        json!([])
    );
    assert_eq!(
        c.login("u", "secret", json!({"domain": {"id": domain}})).await.status,
        401
    );
}

pub async fn assignments_are_listed(c: &Cloud) {
    let (user, project, _) = c.tenant("sam", "member").await;
    let group = c.make("group", json!({"name": "g"})).await;
    let (reader, manager) = (c.role("reader").await, c.role("manager").await);
    c.ok(204, "PUT", &format!("/groups/{group}/users/{user}"), Value::Null)
        .await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/groups/{group}/roles/{manager}"),
        Value::Null,
    )
    .await;
    c.ok(
        204,
        "PUT",
        &format!("/OS-INHERIT/domains/default/users/{user}/roles/{reader}/inherited_to_projects"),
        Value::Null,
    )
    .await;
    let of = async |query: &str| {
        c.ok(200, "GET", &format!("/role_assignments?{query}"), Value::Null)
            .await["role_assignments"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(of(&format!("user.id={user}")).await.len(), 2);
    let one = of(&format!("group.id={group}")).await;
    assert_eq!(one.len(), 1);
    assert_eq!(
        one[0],
        json!({
            "role": {"id": manager}, "group": {"id": group}, "scope": {"project": {"id": project}},
            "links": {"assignment": format!("{}/identity/v3/projects/{project}/groups/{group}/roles/{manager}", c.url)},
        })
    );
    assert_eq!(of(&format!("scope.project.id={project}")).await.len(), 2);
    assert_eq!(
        of(&format!("scope.project.id={project}&role.id={manager}")).await.len(),
        1
    );
    assert_eq!(of("scope.system=all").await.len(), 1);
    assert_eq!(
        of("scope.domain.id=default").await[0]["scope"],
        json!({"domain": {"id": "default"}, "OS-INHERIT:inherited_to": "projects"})
    );
    // Effective: members for groups, projects for what is inherited, what is implied.
    let rows = of(&format!("scope.project.id={project}&user.id={user}&effective")).await;
    assert!(rows.iter().all(|r| r["user"]["id"] == json!(user)));
    let mut roles: Vec<(String, bool, bool)> = Vec::new();
    for r in &rows {
        roles.push((
            r["role"]["id"].as_str().unwrap().to_owned(),
            r["links"].get("membership").is_some(),
            r["scope"].get("OS-INHERIT:inherited_to").is_some(),
        ));
    }
    // member, reader; manager, member, reader by the group; reader by the domain.
    assert_eq!(roles.len(), 6, "{roles:?}");
    assert_eq!(roles.iter().filter(|r| r.1).count(), 3);
    assert_eq!(roles.iter().filter(|r| r.2).count(), 1);
    assert!(rows.iter().any(|r| r["links"].get("prior_role").is_some()));
    // With names.
    let rows = of(&format!("user.id={user}&scope.project.id={project}&include_names")).await;
    assert_eq!(
        rows[0]["user"],
        json!({"id": user, "name": "sam", "domain": {"id": "default", "name": "Default"}})
    );
    assert_eq!(rows[0]["role"]["name"], "member");
    assert_eq!(rows[0]["scope"]["project"]["name"], "sam");
    // The tree below.
    let child = c.make("project", json!({"name": "child", "parent_id": project})).await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{child}/users/{user}/roles/{reader}"),
        Value::Null,
    )
    .await;
    assert_eq!(
        of(&format!("scope.project.id={project}&include_subtree")).await.len(),
        3
    );
    for bad in [
        "include_subtree",
        "user.id=a&group.id=b",
        "scope.project.id=a&scope.domain.id=b",
        "scope.system=all&scope.domain.id=b",
        "effective&group.id=b",
    ] {
        let (status, e) = c.admin("GET", &format!("/role_assignments?{bad}"), Value::Null).await;
        assert_eq!(status, 400, "{bad}: {e}");
    }
}

pub async fn managers_of_a_domain(c: &Cloud) {
    let domain = c.make("domain", json!({"name": "d"})).await;
    let boss = c
        .make(
            "user",
            json!({"name": "boss", "domain_id": domain, "password": "secret"}),
        )
        .await;
    let (manager, member, admin, reader) = (
        c.role("manager").await,
        c.role("member").await,
        c.role("admin").await,
        c.role("reader").await,
    );
    c.ok(
        204,
        "PUT",
        &format!("/domains/{domain}/users/{boss}/roles/{manager}"),
        Value::Null,
    )
    .await;
    let a = c
        .auth(
            json!({"identity": {"methods": ["password"], "password": {"user": {"id": boss, "password": "secret"}}},
            "scope": {"domain": {"id": domain}}}),
        )
        .await;
    let t = token_of(&a);
    let call = async |method: &str, path: &str, body: Value| {
        let a = c.call(&t, method, path, body).await;
        (a.status.as_u16(), a.json())
    };
    // In the domain: users, projects, groups, and grants of the common roles.
    let (status, doc) = call("POST", "/users", json!({"user": {"name": "u", "password": "x"}})).await;
    assert_eq!(
        (status, doc["user"]["domain_id"].as_str()),
        (201, Some(domain.as_str()))
    );
    let user = doc["user"]["id"].as_str().unwrap().to_owned();
    let (status, doc) = call("POST", "/projects", json!({"project": {"name": "p"}})).await;
    assert_eq!(status, 201, "{doc}");
    let project = doc["project"]["id"].as_str().unwrap().to_owned();
    let (status, doc) = call("POST", "/groups", json!({"group": {"name": "g", "domain_id": domain}})).await;
    assert_eq!(status, 201);
    let group = doc["group"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        call("PUT", &format!("/groups/{group}/users/{user}"), Value::Null)
            .await
            .0,
        204
    );
    for (role, status) in [(&member, 204), (&reader, 204), (&manager, 204), (&admin, 403)] {
        for actor in [format!("users/{user}"), format!("groups/{group}")] {
            assert_eq!(
                call("PUT", &format!("/projects/{project}/{actor}/roles/{role}"), Value::Null)
                    .await
                    .0,
                status
            );
        }
    }
    assert_eq!(
        call(
            "DELETE",
            &format!("/projects/{project}/users/{user}/roles/{member}"),
            Value::Null
        )
        .await
        .0,
        204
    );
    assert_eq!(
        call("GET", &format!("/projects/{project}/users/{user}/roles"), Value::Null)
            .await
            .0,
        200
    );
    // What it sees is of the domain.
    let list = async |what: &str| {
        call("GET", &format!("/{what}"), Value::Null).await.1[what]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(list("users").await.len(), 2);
    assert_eq!(list("projects").await.len(), 1);
    assert_eq!(list("groups").await.len(), 1);
    assert_eq!(list("domains").await.len(), 1);
    assert_eq!(list("roles").await.len(), 5);
    for row in list("role_assignments").await {
        assert!(
            row["scope"]["project"]["id"] == json!(project) || row["scope"]["domain"]["id"] == json!(domain),
            "{row}"
        );
    }
    // Outside: nothing.
    let (alien, alien_project, _) = c.tenant("alien", "member").await;
    for (method, path, body) in [
        ("GET", format!("/users/{alien}"), Value::Null),
        (
            "PATCH",
            format!("/users/{alien}"),
            json!({"user": {"password": "mine"}}),
        ),
        ("DELETE", format!("/users/{alien}"), Value::Null),
        ("GET", format!("/projects/{alien_project}"), Value::Null),
        (
            "PATCH",
            format!("/projects/{alien_project}"),
            json!({"project": {"enabled": false}}),
        ),
        (
            "POST",
            "/users".into(),
            json!({"user": {"name": "x", "domain_id": "default"}}),
        ),
        (
            "POST",
            "/projects".into(),
            json!({"project": {"name": "x", "domain_id": "default"}}),
        ),
        (
            "POST",
            "/projects".into(),
            json!({"project": {"name": "x", "parent_id": alien_project}}),
        ),
        ("POST", "/domains".into(), json!({"domain": {"name": "x"}})),
        ("PATCH", format!("/domains/{domain}"), json!({"domain": {"name": "x"}})),
        (
            "PUT",
            format!("/projects/{alien_project}/users/{user}/roles/{member}"),
            Value::Null,
        ),
        (
            "PUT",
            format!("/projects/{project}/users/{alien}/roles/{member}"),
            Value::Null,
        ),
        ("PUT", format!("/groups/{group}/users/{alien}"), Value::Null),
        ("PUT", format!("/system/users/{user}/roles/{member}"), Value::Null),
        (
            "PUT",
            format!("/projects/nothing/users/{user}/roles/{member}"),
            Value::Null,
        ),
        ("POST", "/roles".into(), json!({"role": {"name": "x"}})),
    ] {
        assert_eq!(call(method, &path, body).await.0, 403, "{method} {path}");
    }
    assert_eq!(call("GET", &format!("/users/{user}"), Value::Null).await.0, 200);
    assert_eq!(
        call("PATCH", &format!("/users/{user}"), json!({"user": {"enabled": false}}))
            .await
            .0,
        200
    );
    assert_eq!(call("DELETE", &format!("/users/{user}"), Value::Null).await.0, 204);
    // A manager of a project is none of the domain.
    let (_, _, local) = c.tenant("local", "manager").await;
    for path in ["/users", "/projects", "/roles", "/groups", "/role_assignments"] {
        assert_eq!(c.call(&local, "GET", path, Value::Null).await.status, 403, "{path}");
    }
}
