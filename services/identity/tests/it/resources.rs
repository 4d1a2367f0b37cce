use crate::cloud::{Cloud, token_of};
use serde_json::{Value, json};

fn names(doc: &Value, collection: &str) -> Vec<String> {
    let mut out: Vec<String> = doc[collection]
        .as_array()
        .unwrap_or_else(|| panic!("{doc}"))
        .iter()
        .map(|x| x["name"].as_str().unwrap().to_owned())
        .collect();
    out.sort();
    out
}

pub async fn domains(c: &Cloud) {
    let doc = c
        .ok(
            201,
            "POST",
            "/domains",
            json!({"domain": {"name": "d1", "description": "one", "colour": "blue"}}),
        )
        .await;
    let d = &doc["domain"];
    let id = d["id"].as_str().unwrap();
    assert_eq!(d["enabled"], true);
    assert_eq!(d["colour"], "blue", "attributes of one's own are kept");
    assert_eq!(d["links"]["self"], json!(format!("{}/identity/v3/domains/{id}", c.url)));
    assert_eq!(c.ok(200, "GET", &format!("/domains/{id}"), Value::Null).await, doc);
    c.ok(409, "POST", "/domains", json!({"domain": {"name": "d1"}})).await;
    let chosen = c
        .ok(
            201,
            "POST",
            "/domains",
            json!({"domain": {"name": "d2", "explicit_domain_id": "two"}}),
        )
        .await;
    assert_eq!(chosen["domain"]["id"], "two");
    c.ok(409, "PATCH", "/domains/two", json!({"domain": {"name": "d1"}}))
        .await;
    let doc = c
        .ok(
            200,
            "PATCH",
            "/domains/two",
            json!({"domain": {"name": "deux", "colour": "red", "description": null}}),
        )
        .await;
    assert_eq!(doc["domain"]["name"], "deux");
    assert_eq!(doc["domain"]["colour"], "red");
    assert_eq!(
        names(&c.ok(200, "GET", "/domains?name=deux", Value::Null).await, "domains"),
        ["deux"]
    );
    // As projects.
    assert_eq!(
        c.ok(200, "GET", "/projects/two", Value::Null).await["project"]["is_domain"],
        true
    );
    assert_eq!(
        names(
            &c.ok(200, "GET", "/projects?is_domain=true", Value::Null).await,
            "projects"
        ),
        ["Default", "d1", "deux"]
    );
    // A domain is in no domain.
    assert_eq!(
        names(
            &c.ok(200, "GET", "/projects?is_domain=true&domain_id=two", Value::Null)
                .await,
            "projects"
        ),
        [""; 0]
    );
    let made = c
        .ok(
            201,
            "POST",
            "/projects",
            json!({"project": {"name": "d3", "is_domain": true}}),
        )
        .await;
    assert_eq!(made["project"]["domain_id"], Value::Null);
    c.ok(
        200,
        "GET",
        &format!("/domains/{}", made["project"]["id"].as_str().unwrap()),
        Value::Null,
    )
    .await;
    let three = format!("/projects/{}", made["project"]["id"].as_str().unwrap());
    c.ok(403, "DELETE", &three, Value::Null).await;
    let off = json!({"project": {"enabled": false, "name": "d3x"}});
    assert_eq!(c.ok(200, "PATCH", &three, off).await["project"]["name"], "d3x");
    c.ok(204, "DELETE", &three, Value::Null).await;
    // Deleted only when disabled, with all that is in it.
    let user = c
        .make("user", json!({"name": "u", "domain_id": id, "password": "secret"}))
        .await;
    let project = c.make("project", json!({"name": "p", "domain_id": id})).await;
    let group = c.make("group", json!({"name": "g", "domain_id": id})).await;
    let role = c.role("member").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{role}"),
        Value::Null,
    )
    .await;
    c.ok(204, "PUT", &format!("/groups/{group}/users/{user}"), Value::Null)
        .await;
    let (status, e) = c.admin("DELETE", &format!("/domains/{id}"), Value::Null).await;
    assert_eq!(status, 403);
    assert!(e["error"]["message"].as_str().unwrap().contains("enabled"));
    c.ok(
        200,
        "PATCH",
        &format!("/domains/{id}"),
        json!({"domain": {"enabled": false}}),
    )
    .await;
    c.ok(204, "DELETE", &format!("/domains/{id}"), Value::Null).await;
    for path in [
        format!("/domains/{id}"),
        format!("/users/{user}"),
        format!("/projects/{project}"),
        format!("/groups/{group}"),
    ] {
        c.ok(404, "GET", &path, Value::Null).await;
    }
    let left = c
        .ok(200, "GET", &format!("/role_assignments?user.id={user}"), Value::Null)
        .await;
    assert_eq!(left["role_assignments"], json!([]));
}

pub async fn projects(c: &Cloud) {
    let doc = c
        .ok(
            201,
            "POST",
            "/projects",
            json!({"project": {"name": " top ", "domain_id": "default", "x": 1}}),
        )
        .await;
    let top = doc["project"]["id"].as_str().unwrap().to_owned();
    assert_eq!(doc["project"]["name"], "top");
    assert_eq!(doc["project"]["parent_id"], "default");
    assert_eq!(doc["project"]["is_domain"], false);
    assert_eq!(doc["project"]["description"], "");
    assert_eq!(doc["project"]["options"], json!({}));
    assert_eq!(doc["project"]["tags"], json!([]));
    assert_eq!(doc["project"]["x"], 1);
    assert_eq!(c.ok(200, "GET", &format!("/projects/{top}"), Value::Null).await, doc);
    c.ok(409, "POST", "/projects", json!({"project": {"name": "top"}}))
        .await;
    // The domain is the caller's, the parent's domain is the child's.
    let mid = c.make("project", json!({"name": "mid", "parent_id": top})).await;
    let leaf = c.make("project", json!({"name": "leaf", "parent_id": mid})).await;
    let shown = c
        .ok(200, "GET", &format!("/projects/{leaf}?parents_as_ids"), Value::Null)
        .await;
    assert_eq!(
        shown["project"]["parents"],
        json!({ mid.clone(): { top.clone(): { "default": null } } })
    );
    let shown = c
        .ok(200, "GET", &format!("/projects/{leaf}?parents_as_list"), Value::Null)
        .await;
    assert_eq!(shown["project"]["parents"][0]["project"]["id"], json!(mid));
    let shown = c
        .ok(200, "GET", &format!("/projects/{top}?subtree_as_ids"), Value::Null)
        .await;
    assert_eq!(
        shown["project"]["subtree"],
        json!({ mid.clone(): { leaf.clone(): null } })
    );
    let shown = c
        .ok(200, "GET", &format!("/projects/{top}?subtree_as_list"), Value::Null)
        .await;
    assert_eq!(shown["project"]["subtree"].as_array().unwrap().len(), 2);
    assert_eq!(
        names(
            &c.ok(200, "GET", &format!("/projects?parent_id={top}"), Value::Null)
                .await,
            "projects"
        ),
        ["mid"]
    );
    // Not with children, not enabled ones below a disabled one.
    c.ok(403, "DELETE", &format!("/projects/{top}"), Value::Null).await;
    c.ok(
        403,
        "PATCH",
        &format!("/projects/{top}"),
        json!({"project": {"enabled": false}}),
    )
    .await;
    for p in [&leaf, &mid] {
        c.ok(
            200,
            "PATCH",
            &format!("/projects/{p}"),
            json!({"project": {"enabled": false}}),
        )
        .await;
    }
    c.ok(
        403,
        "PATCH",
        &format!("/projects/{leaf}"),
        json!({"project": {"enabled": true}}),
    )
    .await;
    c.ok(
        400,
        "POST",
        "/projects",
        json!({"project": {"name": "late", "parent_id": mid}}),
    )
    .await;
    // What cannot change.
    c.ok(
        403,
        "PATCH",
        &format!("/projects/{leaf}"),
        json!({"project": {"parent_id": top}}),
    )
    .await;
    c.ok(
        400,
        "PATCH",
        &format!("/projects/{leaf}"),
        json!({"project": {"domain_id": "other"}}),
    )
    .await;
    c.ok(
        400,
        "PATCH",
        &format!("/projects/{leaf}"),
        json!({"project": {"id": "other"}}),
    )
    .await;
    c.ok(
        409,
        "PATCH",
        &format!("/projects/{leaf}"),
        json!({"project": {"name": "top"}}),
    )
    .await;
    let doc = c
        .ok(
            200,
            "PATCH",
            &format!("/projects/{leaf}"),
            json!({"project": {"name": "blatt", "description": "d", "y": [1]}}),
        )
        .await;
    assert_eq!(
        (doc["project"]["name"].as_str(), &doc["project"]["y"]),
        (Some("blatt"), &json!([1]))
    );
    // No deeper than five.
    let mut at = top.clone();
    for n in 2..=5 {
        at = c
            .make("project", json!({"name": format!("level{n}"), "parent_id": at}))
            .await;
    }
    c.ok(
        403,
        "POST",
        "/projects",
        json!({"project": {"name": "level6", "parent_id": at}}),
    )
    .await;
    c.ok(204, "DELETE", &format!("/projects/{leaf}"), Value::Null).await;
    c.ok(404, "GET", &format!("/projects/{leaf}"), Value::Null).await;
    // An immutable one.
    let stone = c
        .make("project", json!({"name": "stone", "options": {"immutable": true}}))
        .await;
    c.ok(
        403,
        "PATCH",
        &format!("/projects/{stone}"),
        json!({"project": {"description": "x"}}),
    )
    .await;
    c.ok(403, "DELETE", &format!("/projects/{stone}"), Value::Null).await;
    c.ok(
        200,
        "PATCH",
        &format!("/projects/{stone}"),
        json!({"project": {"options": {"immutable": false}}}),
    )
    .await;
    c.ok(204, "DELETE", &format!("/projects/{stone}"), Value::Null).await;
    // Its members see it, and those of others do not.
    let (user, own, token) = c.tenant("mina", "reader").await;
    assert_eq!(
        c.call(&token, "GET", &format!("/projects/{own}"), Value::Null)
            .await
            .status,
        200
    );
    for (method, path, status) in [
        ("GET", format!("/projects/{top}"), 403),
        ("GET", "/projects/nothing".into(), 403),
        ("GET", "/projects".into(), 403),
        ("PATCH", format!("/projects/{own}"), 403),
        ("GET", format!("/users/{user}/projects"), 200),
    ] {
        let a = c
            .call(
                &token,
                method,
                &path,
                if method == "PATCH" {
                    json!({"project": {"name": "z"}})
                } else {
                    Value::Null
                },
            )
            .await;
        assert_eq!(a.status, status, "{method} {path}");
    }
    assert_eq!(
        names(
            &c.ok(200, "GET", &format!("/users/{user}/projects"), Value::Null).await,
            "projects"
        ),
        ["mina"]
    );
}

pub async fn project_tags(c: &Cloud) {
    let a = c.make("project", json!({"name": "a", "tags": ["x", "y"]})).await;
    let b = c.make("project", json!({"name": "b", "tags": ["y"]})).await;
    let tags = format!("/projects/{a}/tags");
    assert_eq!(c.ok(200, "GET", &tags, Value::Null).await["tags"], json!(["x", "y"]));
    c.ok(204, "GET", &format!("{tags}/x"), Value::Null).await;
    c.ok(404, "GET", &format!("{tags}/z"), Value::Null).await;
    c.ok(201, "PUT", &format!("{tags}/z"), Value::Null).await;
    c.ok(201, "PUT", &format!("{tags}/z"), Value::Null).await;
    assert_eq!(
        c.ok(200, "GET", &tags, Value::Null).await["tags"],
        json!(["x", "y", "z"])
    );
    c.ok(204, "DELETE", &format!("{tags}/z"), Value::Null).await;
    c.ok(404, "DELETE", &format!("{tags}/z"), Value::Null).await;
    let of = async |query: &str| {
        names(
            &c.ok(200, "GET", &format!("/projects?{query}"), Value::Null).await,
            "projects",
        )
        .into_iter()
        .filter(|n| n.len() == 1)
        .collect::<Vec<_>>()
    };
    assert_eq!(of("tags=x,y").await, ["a"]);
    assert_eq!(of("tags=y").await, ["a", "b"]);
    assert_eq!(of("tags-any=x,q").await, ["a"]);
    assert_eq!(of("not-tags=x,y").await, ["b"]);
    assert_eq!(of("not-tags-any=x,q").await, ["b"]);
    assert_eq!(
        c.ok(200, "PUT", &tags, json!({"tags": ["q", "q"]})).await["tags"],
        json!(["q"])
    );
    c.ok(204, "DELETE", &tags, Value::Null).await;
    assert_eq!(c.ok(200, "GET", &tags, Value::Null).await["tags"], json!([]));
    c.ok(400, "PUT", &tags, json!({"tags": ["a,b"]})).await;
    c.ok(
        400,
        "PUT",
        &tags,
        json!({"tags": (0..81).map(|n| n.to_string()).collect::<Vec<_>>()}),
    )
    .await;
    assert_eq!(
        c.ok(200, "GET", &format!("/projects/{b}/tags"), Value::Null).await["tags"],
        json!(["y"])
    );
}

pub async fn users(c: &Cloud) {
    let body = json!({"user": {"name": "nora", "password": "secret", "email": "n@example.org", "description": "x"}});
    let doc = c.ok(201, "POST", "/users", body.clone()).await;
    let u = &doc["user"];
    let id = u["id"].as_str().unwrap();
    assert_eq!(u["domain_id"], "default", "the domain of the caller");
    assert_eq!(u["email"], "n@example.org");
    assert_eq!(u["password_expires_at"], Value::Null);
    assert!(u.get("password").is_none() && u.get("password_set_at").is_none() && u.get("default_project_id").is_none());
    assert_eq!(c.ok(200, "GET", &format!("/users/{id}"), Value::Null).await, doc);
    c.ok(409, "POST", "/users", body).await;
    c.ok(
        404,
        "POST",
        "/users",
        json!({"user": {"name": "x", "domain_id": "nowhere"}}),
    )
    .await;
    c.ok(
        400,
        "POST",
        "/users",
        json!({"user": {"name": "x", "default_project_id": "default"}}),
    )
    .await;
    c.ok(
        404,
        "POST",
        "/users",
        json!({"user": {"name": "x", "default_project_id": "nothing"}}),
    )
    .await;
    let other = c.make("user", json!({"name": "otto", "enabled": false})).await;
    c.ok(
        409,
        "PATCH",
        &format!("/users/{other}"),
        json!({"user": {"name": "nora"}}),
    )
    .await;
    let doc = c
        .ok(
            200,
            "PATCH",
            &format!("/users/{other}"),
            json!({"user": {"name": "otto2", "email": "o@example.org", "enabled": true}}),
        )
        .await;
    assert_eq!(
        (doc["user"]["name"].as_str(), doc["user"]["enabled"].as_bool()),
        (Some("otto2"), Some(true))
    );
    c.ok(
        400,
        "PATCH",
        &format!("/users/{other}"),
        json!({"user": {"domain_id": "elsewhere"}}),
    )
    .await;
    // Oneself, and nobody else.
    let token = token_of(&c.login("nora", "secret", Value::Null).await);
    assert_eq!(
        c.call(&token, "GET", &format!("/users/{id}"), Value::Null).await.status,
        200
    );
    for (method, path) in [
        ("GET", format!("/users/{other}")),
        ("GET", "/users".into()),
        ("DELETE", format!("/users/{id}")),
        ("GET", "/users/nothing".into()),
    ] {
        assert_eq!(
            c.call(&token, method, &path, Value::Null).await.status,
            403,
            "{method} {path}"
        );
    }
    let body = json!({"user": {"name": "queen"}});
    assert_eq!(
        c.call(&token, "PATCH", &format!("/users/{id}"), body.clone())
            .await
            .status,
        403
    );
    assert_eq!(c.call(&token, "POST", "/users", body).await.status, 403);
    // The change log tells that the password changed, and not which.
    let generation = async |id: &str| {
        let mut tx = c.db.read().await.unwrap();
        let rows = tx
            .rows(
                "SELECT operation, actor FROM change_log WHERE id = $1 ORDER BY sequence",
                &[id.into()],
            )
            .await
            .unwrap();
        rows.iter()
            .map(|r| (r.str(0).unwrap(), r.str(1).unwrap()))
            .collect::<Vec<_>>()
    };
    let body = json!({"user": {"password": "newer", "original_password": "secret"}});
    assert_eq!(
        c.raw("POST", &format!("/users/{id}/password"), &[], body.to_string())
            .await
            .status,
        204
    );
    let log = generation(id).await;
    assert_eq!(log.len(), 2);
    assert_eq!(log[1], ("update".to_owned(), id.to_owned()), "by the user");
    c.ok(204, "DELETE", &format!("/users/{id}"), Value::Null).await;
    c.ok(404, "GET", &format!("/users/{id}"), Value::Null).await;
    c.ok(404, "DELETE", &format!("/users/{id}"), Value::Null).await;
}

pub async fn groups(c: &Cloud) {
    let doc = c
        .ok(
            201,
            "POST",
            "/groups",
            json!({"group": {"name": "g1", "domain_id": "default", "z": {}}}),
        )
        .await;
    let g = doc["group"]["id"].as_str().unwrap();
    assert_eq!(doc["group"]["z"], json!({}));
    c.ok(
        409,
        "POST",
        "/groups",
        json!({"group": {"name": "g1", "domain_id": "default"}}),
    )
    .await;
    let g2 = c.make("group", json!({"name": "g2", "domain_id": "default"})).await;
    c.ok(409, "PATCH", &format!("/groups/{g2}"), json!({"group": {"name": "g1"}}))
        .await;
    assert_eq!(
        c.ok(200, "PATCH", &format!("/groups/{g2}"), json!({"group": {"name": "g3"}}))
            .await["group"]["name"],
        "g3"
    );
    let (user, _, token) = c.tenant("paul", "member").await;
    let member = format!("/groups/{g}/users/{user}");
    c.ok(404, "GET", &member, Value::Null).await;
    c.ok(204, "PUT", &member, Value::Null).await;
    c.ok(204, "PUT", &member, Value::Null).await;
    c.ok(204, "GET", &member, Value::Null).await;
    assert_eq!(
        names(
            &c.ok(200, "GET", &format!("/groups/{g}/users"), Value::Null).await,
            "users"
        ),
        ["paul"]
    );
    assert_eq!(
        names(
            &c.ok(200, "GET", &format!("/users/{user}/groups"), Value::Null).await,
            "groups"
        ),
        ["g1"]
    );
    assert_eq!(
        c.call(&token, "GET", &format!("/users/{user}/groups"), Value::Null)
            .await
            .status,
        200,
        "one's own"
    );
    assert_eq!(c.call(&token, "GET", &member, Value::Null).await.status, 403);
    assert_eq!(
        c.call(&token, "PUT", &format!("/groups/{g2}/users/{user}"), Value::Null)
            .await
            .status,
        403
    );
    c.ok(404, "PUT", &format!("/groups/nothing/users/{user}"), Value::Null)
        .await;
    c.ok(404, "PUT", &format!("/groups/{g}/users/nobody"), Value::Null)
        .await;
    c.ok(204, "DELETE", &member, Value::Null).await;
    c.ok(404, "DELETE", &member, Value::Null).await;
    c.ok(204, "PUT", &member, Value::Null).await;
    c.ok(204, "DELETE", &format!("/groups/{g}"), Value::Null).await;
    assert_eq!(
        c.ok(200, "GET", &format!("/users/{user}/groups"), Value::Null).await["groups"],
        json!([])
    );
}

pub async fn roles(c: &Cloud) {
    assert_eq!(
        names(&c.ok(200, "GET", "/roles", Value::Null).await, "roles"),
        ["admin", "manager", "member", "reader", "service"]
    );
    let id = c.make("role", json!({"name": "auditor"})).await;
    let doc = c.ok(200, "GET", &format!("/roles/{id}"), Value::Null).await;
    assert_eq!(
        (
            &doc["role"]["domain_id"],
            &doc["role"]["description"],
            &doc["role"]["options"]
        ),
        (&Value::Null, &Value::Null, &json!({}))
    );
    c.ok(409, "POST", "/roles", json!({"role": {"name": "auditor"}})).await;
    c.ok(
        409,
        "PATCH",
        &format!("/roles/{id}"),
        json!({"role": {"name": "reader"}}),
    )
    .await;
    assert_eq!(
        c.ok(
            200,
            "PATCH",
            &format!("/roles/{id}"),
            json!({"role": {"name": "looker"}})
        )
        .await["role"]["name"],
        "looker"
    );
    // Those that policy stands on do not change.
    let admin = c.role("admin").await;
    c.ok(
        403,
        "PATCH",
        &format!("/roles/{admin}"),
        json!({"role": {"name": "king"}}),
    )
    .await;
    c.ok(403, "DELETE", &format!("/roles/{admin}"), Value::Null).await;
    // Roles of a domain are listed apart.
    let own = c.make("role", json!({"name": "auditor", "domain_id": "default"})).await;
    assert_eq!(
        names(
            &c.ok(200, "GET", "/roles?domain_id=default", Value::Null).await,
            "roles"
        ),
        ["auditor"]
    );
    assert!(!names(&c.ok(200, "GET", "/roles", Value::Null).await, "roles").contains(&"auditor".to_owned()));
    // Inference.
    let reader = c.role("reader").await;
    let rule = format!("/roles/{own}/implies/{reader}");
    c.ok(404, "GET", &rule, Value::Null).await;
    let doc = c.ok(201, "PUT", &rule, Value::Null).await;
    assert_eq!(doc["role_inference"]["implies"]["name"], "reader");
    c.ok(200, "GET", &rule, Value::Null).await;
    assert_eq!(c.call(&c.admin, "HEAD", &rule, Value::Null).await.status, 204);
    c.ok(403, "PUT", &format!("/roles/{own}/implies/{admin}"), Value::Null)
        .await;
    c.ok(
        409,
        "PUT",
        &format!("/roles/{reader}/implies/{}", c.role("member").await),
        Value::Null,
    )
    .await;
    c.ok(404, "PUT", &format!("/roles/{own}/implies/nothing"), Value::Null)
        .await;
    c.ok(403, "PUT", &format!("/roles/{reader}/implies/{own}"), Value::Null)
        .await;
    let doc = c.ok(200, "GET", &format!("/roles/{own}/implies"), Value::Null).await;
    assert_eq!(doc["role_inference"]["implies"][0]["name"], "reader");
    let doc = c.ok(200, "GET", "/role_inferences", Value::Null).await;
    assert_eq!(doc["role_inferences"].as_array().unwrap().len(), 4);
    // A token has what the role of the domain implies, and not the role itself.
    let (user, project, _) = c.tenant("rita", "service").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{own}"),
        Value::Null,
    )
    .await;
    let a = c.login("rita", "secret", json!({"project": {"id": project}})).await;
    assert_eq!(names(&a.json()["token"], "roles"), ["reader", "service"]);
    let t = token_of(&a);
    c.ok(204, "DELETE", &rule, Value::Null).await;
    c.ok(404, "DELETE", &rule, Value::Null).await;
    let shown = c
        .raw(
            "GET",
            "/auth/tokens",
            &[("x-auth-token", &t), ("x-subject-token", &t)],
            "",
        )
        .await
        .json();
    assert_eq!(names(&shown["token"], "roles"), ["service"]);
    // Deleting a role takes its assignments along.
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{id}"),
        Value::Null,
    )
    .await;
    c.ok(204, "DELETE", &format!("/roles/{id}"), Value::Null).await;
    let left = c
        .ok(200, "GET", &format!("/role_assignments?role.id={id}"), Value::Null)
        .await;
    assert_eq!(left["role_assignments"], json!([]));
    assert_eq!(
        c.call(&t, "POST", "/roles", json!({"role": {"name": "x"}}))
            .await
            .status,
        403
    );
    assert_eq!(c.call(&t, "GET", "/roles", Value::Null).await.status, 403);
}

pub async fn paging_and_filters(c: &Cloud) {
    let domain = c.make("domain", json!({"name": "pages"})).await;
    for n in 0..10 {
        let name = if n % 2 == 0 {
            format!("Even-{n}")
        } else {
            format!("odd-{n}")
        };
        c.make("user", json!({"name": name, "domain_id": domain, "enabled": n != 3}))
            .await;
    }
    let base = format!("/users?domain_id={domain}");
    let all = c.ok(200, "GET", &base, Value::Null).await;
    assert_eq!(all["users"].as_array().unwrap().len(), 10);
    assert_eq!(
        all["links"],
        json!({"next": null, "previous": null, "self": format!("{}/identity/v3/users", c.url)})
    );
    assert!(all.get("truncated").is_none());
    // Page by page gives the same rows in the same order.
    let mut seen = Vec::new();
    let mut next = format!("{base}&limit=3");
    let mut pages = 0;
    loop {
        let doc = c.ok(200, "GET", &next, Value::Null).await;
        seen.extend(doc["users"].as_array().unwrap().clone());
        pages += 1;
        match doc["links"]["next"].as_str() {
            Some(url) => {
                assert_eq!(doc["truncated"], true);
                next = url.strip_prefix(&format!("{}/identity/v3", c.url)).unwrap().to_owned();
            }
            None => break,
        }
    }
    assert_eq!(pages, 4);
    assert_eq!(json!(seen), all["users"]);
    let of = async |query: &str| {
        names(
            &c.ok(200, "GET", &format!("{base}&{query}"), Value::Null).await,
            "users",
        )
    };
    assert_eq!(of("enabled=false").await, ["odd-3"]);
    assert_eq!(of("enabled").await.len(), 9);
    assert_eq!(of("name=odd-1").await, ["odd-1"]);
    assert_eq!(of("name__startswith=Even").await.len(), 5);
    assert_eq!(of("name__startswith=even").await.len(), 0);
    assert_eq!(of("name__istartswith=even").await.len(), 5);
    assert_eq!(of("name__contains=dd-").await.len(), 5);
    assert_eq!(of("name__icontains=DD-7").await, ["odd-7"]);
    assert_eq!(of("name__endswith=-9").await, ["odd-9"]);
    assert_eq!(of("name__iendswith=EN-8").await, ["Even-8"]);
    assert_eq!(of("nonsense=1").await.len(), 10, "no filter of this list");
    // Filters and pages together.
    let doc = c
        .ok(200, "GET", &format!("{base}&name__startswith=odd&limit=2"), Value::Null)
        .await;
    assert_eq!(doc["users"].as_array().unwrap().len(), 2);
    let rest = doc["links"]["next"]
        .as_str()
        .unwrap()
        .replace(&format!("{}/identity/v3", c.url), "");
    assert_eq!(
        c.ok(200, "GET", &rest, Value::Null).await["users"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
